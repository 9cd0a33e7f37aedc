"""Save Layers on disks that fail and with names that are none: whole files or no files, and the next run saves."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import importlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import comfy.model_management as memory
import folder_paths
import pytest
import torch
from PIL import Image
from psd_tools import PSDImage
from psd_tools.constants import Resource

from tests.faults.conftest import Run
from tests.faults.disks import Disk, small_disk
from tests.faults.reports import told
from tests.faults.right import Right, right

__all__ = ["right", "small_disk"]

FORMS = ["PSD", "OpenRaster", "PNG"]
SUFFIXES = {"PSD": ".psd", "OpenRaster": ".ora", "PNG": ".png"}
LAYERS = 3
Save = Callable[..., Any]


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output folder of its own, and a folder for previews."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    (tmp_path / "output").mkdir()
    return tmp_path / "output"


@pytest.fixture
def save(node_classes: dict[str, Any], output: Path) -> Save:
    """save(format, prefix, metadata): three layers of noise, which do not compress."""
    layers = {f"layer{i}": torch.rand(1, 96, 128, 4, generator=torch.Generator().manual_seed(i)) for i in range(LAYERS)}

    def call(form: str, prefix: str = "picture", extra: Any = None, names: str = "") -> Any:
        node = node_classes["DiaphaneSaveLayers"].PREPARE_CLASS_CLONE(None)
        node.hidden.prompt, node.hidden.extra_pnginfo = {"1": {"class_type": "x"}}, extra
        return node.EXECUTE_NORMALIZED(layers=layers, filename_prefix=prefix, format=form, names=names).ui

    return call


def files(folder: Path) -> list[Path]:
    """All files below a folder, hidden ones too."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def check_whole(paths: list[Path], form: str) -> None:
    assert len(paths) == (LAYERS if form == "PNG" else 1), paths
    for path in paths:
        assert path.suffix == SUFFIXES[form]
        if form == "PSD":
            assert len(PSDImage.open(path)) == LAYERS
        elif form == "OpenRaster":
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
        else:
            with Image.open(path) as image:
                image.load()


@pytest.mark.parametrize("form", FORMS)
def test_disk_full(save: Save, form: str, small_disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_paths, "output_directory", str(small_disk.folder))
    with small_disk.full():
        told(lambda: save(form), [str(small_disk.folder), "is full", "Make room"])
        assert [path.name for path in files(small_disk.folder) if path.name != "filler"] == []
    save(form)
    check_whole(files(small_disk.folder), form)


SPRITES: list[tuple[str, dict[str, Any]]] = [("DiaphaneSaveSheet", {})]
SPRITES += [("DiaphaneSaveAnimation", {"format": form, "quality": 100}) for form in ("APNG", "WebP", "WebM")]


@pytest.mark.parametrize(("node_id", "settings"), SPRITES)
def test_disk_full_of_sprites(
    run: Run, right: Right, node_id: str, settings: dict[str, Any], small_disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_paths, "output_directory", str(small_disk.folder))
    inputs = {**right.inputs(node_id), **settings}
    with small_disk.full():
        told(lambda: run(node_id, **inputs), [str(small_disk.folder), "is full", "Make room"])
        assert [path.name for path in files(small_disk.folder) if path.name != "filler"] == []
    run(node_id, **inputs)
    assert len(files(small_disk.folder)) == (2 if node_id == "DiaphaneSaveSheet" else 1)


@pytest.mark.parametrize("form", ["PSD", "OpenRaster"])
def test_disk_of_previews_full(save: Save, output: Path, form: str, small_disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document is saved by then, and whole."""
    monkeypatch.setattr(folder_paths, "temp_directory", str(small_disk.folder))
    if small_disk.words_when_downloading == "is full":
        with small_disk.full():
            told(lambda: save(form), [str(small_disk.folder), "is full"])
        assert files(small_disk.folder) == []
        check_whole(files(output), form)
    save(form)
    check_whole(files(output)[-1:], form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("nth", range(1, 7))
def test_each_name_that_is_given_fails_once(
    save: Save, output: Path, pack: ModuleType, monkeypatch: pytest.MonkeyPatch, form: str, nth: int
) -> None:
    """Files get their names one by one at the end, then a picture of each layer. If the nth cannot, those that have one are whole."""
    module = importlib.import_module(f"{pack.__name__}.lib_layerdiffuse.comfyui.files.output_files")
    replace, done = os.replace, 0

    def refuse(source: Path, target: Path) -> None:
        nonlocal done
        done += 1
        if done == nth:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", refuse)
        if nth <= LAYERS + (LAYERS if form == "PNG" else 1):
            told(lambda: save(form), ["Permission denied", "filename_prefix", "permissions"])
        else:
            save(form)
    assert not [path for path in files(output.parent) if path.name.endswith(".part")]
    before = files(output)
    for path in before:
        check_whole([path] * (LAYERS if form == "PNG" else 1), form)
    save(form)
    check_whole(sorted(set(files(output)) - set(before)), form)


@pytest.mark.parametrize("form", FORMS)
def test_cancelled_at_every_moment(save: Save, output: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    patience = 0
    for patience in range(1, 20):
        asked = 0

        def enough(patience: int = patience) -> None:
            nonlocal asked
            asked += 1
            if asked == patience:
                raise memory.InterruptProcessingException

        monkeypatch.setattr(memory, "throw_exception_if_processing_interrupted", enough)
        try:
            save(form)
        except memory.InterruptProcessingException:
            assert files(output) == []
            continue
        break
    assert patience > (LAYERS if form == "PNG" else 1)
    check_whole(files(output), form)


def test_what_a_killed_server_left_is_replaced(save: Save, output: Path) -> None:
    for form, name in (("PSD", "picture_00001_.psd"), ("OpenRaster", "picture_00001_.ora"), ("PNG", "picture_00001_01.png")):
        (output / f".{name}.part").write_bytes(b"half of it")
        save(form)
        assert not list(output.glob(".*"))
        check_whole([path for path in files(output) if path.suffix == SUFFIXES[form]], form)
        for path in files(output):
            path.unlink()


# --- names -----------------------------------------------------------------------------------------------------------------------------

OUTSIDE = ["../outside", "/tmp/diaphane-outside", "a/../../outside", "..", "../output-2/x", "link/outside", "link/../../outside"]
IMPOSSIBLE = ["nul\0byte", "sub\0dir/x", "\ud800", "x" * 300, "y" * 300 + "/x"]
ODD = [
    "",
    ".",
    "sub/",
    "./x",
    "a//b",
    "%year%/%width%",
    "...",
    "con",
    "aux/nul",
    "COM1",
    'quote"<>|*?',
    "é 狐 🦊",
    "new\nline",
    "-rf",
    "~",
    "$HOME",
]


@pytest.mark.parametrize("prefix", OUTSIDE)
@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_saved_outside(save: Save, output: Path, prefix: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (output / "link").symlink_to(tmp_path / "elsewhere")
    try:
        save(form, prefix)
    except Exception as error:  # the host's own words
        assert "outside the output folder" in str(error), error
    outside = [path for path in files(tmp_path) if not path.resolve().is_relative_to(output) and "temp" not in path.parts]
    assert outside == []
    assert not Path("/tmp").joinpath("diaphane-outside_00001_.psd").exists()


@pytest.mark.parametrize("prefix", IMPOSSIBLE, ids=["NUL", "NUL in the folder", "half a character", "too long", "folder too long"])
@pytest.mark.parametrize("form", FORMS)
def test_names_that_no_disk_takes(save: Save, output: Path, prefix: str, form: str) -> None:
    with pytest.raises(Exception, match="(?s)filename_prefix|outside the output folder"):
        save(form, prefix)
    assert files(output) == []
    save(form)
    check_whole(files(output), form)


def test_an_error_of_the_code_is_not_taken_for_a_bad_name(save: Save, pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("a mistake")

    monkeypatch.setattr(importlib.import_module(f"{pack.__name__}.lib_layerdiffuse.comfyui.files.save_layers"), "write_openraster", broken)
    with pytest.raises(ValueError, match="a mistake"):
        save("OpenRaster")


@pytest.mark.parametrize("prefix", ODD)
def test_odd_names_stay_inside(save: Save, output: Path, tmp_path: Path, prefix: str) -> None:
    save("OpenRaster", prefix)
    check_whole([path for path in files(tmp_path) if path.suffix == ".ora"], "OpenRaster")
    assert all(path.is_relative_to(output) or path.is_relative_to(tmp_path / "temp") for path in files(tmp_path))


NASTY = ["a\0b", "\x1b[31m", "<layer/>", '"&amp;', "../../x", "\ud800", "\ufffe", "x" * 5000, "🦊" * 300, "\u202eevil", "=cmd()"]


@pytest.mark.parametrize("form", FORMS)
def test_layer_names_of_any_kind(save: Save, output: Path, form: str) -> None:
    for first in range(0, len(NASTY), LAYERS):
        save(form, f"names{first}", names="\n".join(NASTY[first : first + LAYERS]))
        check_whole([path for path in files(output) if path.name.startswith(f"names{first}_")], form)


KEYS = ["workflow", "工作流", "", "1st", "a b", "x" * 200, "tEXt\0", "<xml>", "comfy:prompt", "é", "🦊"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", KEYS)
def test_metadata_of_any_kind(save: Save, output: Path, form: str, key: str) -> None:
    """extra_pnginfo comes from the workflow: its keys may be anything."""
    workflow = {"nodes": [], "text": "狐 <&> \0 \ud800 ]]>"}
    save(form, extra={"workflow": workflow, key: workflow} if key != "workflow" else {key: workflow})
    check_whole(files(output), form)
    [path, *_] = files(output)
    if form == "PNG":
        with Image.open(path) as image:
            assert json.loads(image.info["workflow"]) == workflow
    elif form == "PSD":
        packet = PSDImage.open(path).image_resources.get_data(Resource.XMP_METADATA)
        root = ElementTree.fromstring(packet.partition(b"?>")[2].rpartition(b"<?")[0].strip())
        texts = {element.tag.rpartition("}")[2]: element.text for element in root.iter() if (element.text or "").strip()}
        assert json.loads(texts["workflow"] or "") == workflow


@pytest.fixture(autouse=True)
def _no_file_is_left_open(tmp_path: Path) -> Iterator[None]:
    links = Path("/proc/self/fd")
    yield
    if links.is_dir():
        assert not [link for link in links.iterdir() if link.is_symlink() and str(tmp_path) in str(link.readlink())]
