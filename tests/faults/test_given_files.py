"""Layered files and pictures that are damaged, hostile or not there: one sentence that names the file, and the next one opens."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import pytest
from PIL import Image

from tests.faults.conftest import Run
from tests.faults.reports import told
from tests.faults.right import Right, given, given_document, given_picture, right
from tests.unit.photoshop import RLE, ZIP, Layer, document

__all__ = ["right"]

SIZE = (6, 9)
PLANES = {index: np.random.default_rng(index + 1).random(SIZE) for index in (0, 1, 2, -1)}
LAYERS = [Layer(PLANES, "ground"), Layer(PLANES, "fox", at=(1, 2), mask=(0, 0, np.ones(SIZE), 0, 0, b""))]
GOOD = {how: document(LAYERS, SIZE, compression=how) for how in (RLE, ZIP)}
HEAD = 26 + 4 + 4  # the header, no palette, no resources
LIST = HEAD + 4 + 4  # lengths of the layers' section and of their list
STACK = '<image w="9" h="6"><stack><layer name="fox" src="data/fox.png" x="1" y="2"/></stack></image>'


def png(size: tuple[int, int] = SIZE, mode: str = "RGBA") -> bytes:
    file = BytesIO()
    Image.new(mode, size[::-1], 128).save(file, "PNG")
    return file.getvalue()


def ora(stack: str | bytes = STACK, **files: bytes) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"mimetype": b"image/openraster", "stack.xml": stack, "data/fox.png": png(), **files}.items():
            archive.writestr(name, data)
    return file.getvalue()


def patched(data: bytes, at: int, form: str, *values: Any) -> bytes:
    return data[:at] + struct.pack(form, *values) + data[at + struct.calcsize(form) :]


def huge_png() -> bytes:
    """Its header says 60000 pixels a side; there are none."""
    data = bytearray(png())
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def encrypted() -> bytes:
    """Entries that say that they need a password."""
    data = bytearray(ora())
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + at] |= 1
    return bytes(data)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + STACK.replace("fox", "&b;", 1)
# {what is wrong: (ending, the file)}
DAMAGED: dict[str, tuple[str, bytes]] = {
    "nothing in it": ("psd", b""),
    "a text": ("psd", b"not a picture at all" * 9),
    "a PNG": ("psd", png()),
    "a signature alone": ("psd", b"8BPS"),
    "version 3": ("psd", patched(GOOD[RLE], 4, ">H", 3)),
    "an odd depth": ("psd", patched(GOOD[RLE], 22, ">H", 7)),
    "an odd colour mode": ("psd", patched(GOOD[RLE], 24, ">H", 7)),
    "no channels": ("psd", patched(GOOD[RLE], 12, ">H", 0)),
    "no height": ("psd", patched(GOOD[RLE], 14, ">I", 0)),
    "a canvas larger than any": ("psd", patched(GOOD[RLE], 14, ">II", 290_000, 290_000)),
    "a palette beyond the end": ("psd", patched(GOOD[RLE], 26, ">I", 0xFFFFFFFF)),
    "a section beyond the end": ("psd", patched(GOOD[RLE], HEAD, ">I", 0x7FFFFFFF)),
    "a list beyond its section": ("psd", patched(GOOD[RLE], HEAD + 4, ">I", 0x7FFFFFFF)),
    "32767 layers": ("psd", patched(GOOD[RLE], LIST, ">h", 32767)),
    "a layer larger than any": ("psd", patched(GOOD[RLE], LIST + 2, ">4i", -(2**31), -(2**31), 2**31 - 1, 2**31 - 1)),
    "a layer larger than its pixels": ("psd", patched(GOOD[RLE], LIST + 2, ">4i", 0, 0, 9000, 9000)),
    "a zipped layer larger than its pixels": ("psd", patched(GOOD[ZIP], LIST + 2, ">4i", 0, 0, 9000, 9000)),
    "a channel beyond the end": ("psd", patched(GOOD[RLE], LIST + 20, ">I", 0x7FFFFFFF)),
    "no signature of a layer": ("psd", patched(GOOD[RLE], LIST + 18 + 4 * 6, ">4s", b"XXXX")),
    "an unknown compression": ("psd", GOOD[ZIP].replace(b"\0\2\x78\x9c", b"\0\x09\x78\x9c")),
    "a deflated channel that is none": ("psd", GOOD[ZIP].replace(b"\x78\x9c", b"\xff\xff")),
    "only empty layers": ("psd", document([Layer({}, "levels")], SIZE)),
    "a PSB that is cut": ("psb", document(LAYERS, SIZE, version=2)[:200]),
    "no archive": ("ora", b"PK\3\4" + bytes(200)),
    "a cut archive": ("ora", ora()[:-40]),
    "no stack.xml": ("ora", ora().replace(b"stack.xml", b"stock.xml")),
    "no XML": ("ora", ora("<image><stack>")),
    "no stack in it": ("ora", ora('<image w="9" h="6"/>')),
    "no size": ("ora", ora("<image><stack/></image>")),
    "words for numbers": ("ora", ora(STACK.replace('"9"', '"wide"'))),
    "a canvas larger than a number": ("ora", ora(STACK.replace('"9"', '"1e400"'))),
    "entities": ("ora", ora(BOMB)),
    "a stack.xml of 100 MB": ("ora", ora(b" " * (1 << 27))),
    "a picture elsewhere": ("ora", ora(STACK.replace("data/fox.png", "../../secret.png"))),
    "a picture of the system": ("ora", ora(STACK.replace("data/fox.png", "/etc/passwd"))),
    "a picture that is none": ("ora", ora(**{"data/fox.png": b"text"})),
    "a picture larger than any": ("ora", ora(**{"data/fox.png": huge_png()})),
    "a cut picture": ("ora", ora(**{"data/fox.png": png((60, 90))[:90]})),
    "a password": ("ora", encrypted()),
    "groups without end": ("ora", ora('<image w="9" h="6">' + "<stack>" * 9000 + "</stack>" * 9000 + "</image>")),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_damaged_documents(run: Run, right: Right, fault: str) -> None:
    ending, data = DAMAGED[fault]
    given(f"damaged.{ending}").write_bytes(data)
    for groups in ("take apart", "merge"):
        told(lambda groups=groups: run("DiaphaneLoadLayers", file=f"damaged.{ending}", groups=groups, pick=""), [f"damaged.{ending}"])
    right.after(run, "DiaphaneLoadLayers", "file")


@pytest.mark.parametrize("how", GOOD)
def test_documents_that_are_cut_anywhere(run: Run, how: int) -> None:
    """Most are damaged; where only the whole picture at the end is cut, the layers are all there."""
    data = GOOD[how]
    layers_end = HEAD + 4 + struct.unpack(">I", data[HEAD : HEAD + 4])[0]
    for end in range(1, layers_end, 7):
        given("cut.psd").write_bytes(data[:end])
        told(lambda: run("DiaphaneLoadLayers", file="cut.psd", groups="take apart", pick=""), ["cut.psd"])
    given("cut.psd").write_bytes(data[:layers_end])
    assert run("DiaphaneLoadLayers", file="cut.psd", groups="take apart", pick="fox")


PICTURES: dict[str, Callable[[], bytes]] = {
    "nothing in it": lambda: b"",
    "a text": lambda: b"text",
    "cut": lambda: png((60, 90))[:90],
    "larger than any": huge_png,
    "a document": lambda: GOOD[RLE],
}


@pytest.mark.parametrize("fault", PICTURES)
def test_damaged_pictures(run: Run, right: Right, fault: str) -> None:
    given("damaged.png").write_bytes(PICTURES[fault]())
    inputs = {**right.inputs("DiaphaneLoadTransparent"), "image": "damaged.png"}
    if fault == "a document":  # which Pillow opens: its whole picture
        assert run("DiaphaneLoadTransparent", **inputs)
    else:
        told(lambda: run("DiaphaneLoadTransparent", **inputs), ["damaged.png"])
    right.after(run, "DiaphaneLoadTransparent", "image")


def test_only_the_folders_of_comfyui_are_read(run: Run, right: Right, base_directory: Path, tmp_path: Path) -> None:
    for ending, node_id, setting in (("psd", "DiaphaneLoadLayers", "file"), ("png", "DiaphaneLoadTransparent", "image")):
        secret = base_directory / f"secret.{ending}"
        name = given_document() if ending == "psd" else given_picture()
        secret.write_bytes(given(name).read_bytes())
        link = given(f"link.{ending}")
        link.unlink(missing_ok=True)
        link.symlink_to(secret)
        evil = [str(secret), f"../{secret.name}", f"../{secret.name} [output]", f"x/../../{secret.name}", f"~/{secret.name}", link.name]
        evil += [f"{name}\0", "\0", "", ".", "..", "/etc/passwd", "/dev/zero", "x" * 5000 + f".{ending}", 7, None, [name]]
        evil += [f"{folder_paths.get_input_directory()}/../{secret.name}", f"file://{secret}", "notes.txt", " [output]", "[temp]"]
        for value in evil:
            words = ["got nothing"] if value is None else ["There is no file", "Choose another one"]
            told(lambda value=value: run(node_id, **{**right.inputs(node_id), setting: value}), words)  # noqa: B023
        assert run(node_id, **{**right.inputs(node_id), setting: f"{name} [input]"})
    for folder in ("..", ".", "/etc", "../output", 7, ["none"]):
        told(lambda folder=folder: run("DiaphaneLoadTransparent", image="right.png", folder=folder, folder_as="list"), ["no pictures"])


def test_files_are_offered_and_checked_before_a_run(node_classes: dict[str, Any], base_directory: Path) -> None:
    given("sub/deep/fox.ORA").write_bytes(ora())
    given("sub/a.png").write_bytes(png())
    given("clipspace/b.png").write_bytes(png())
    saved = base_directory / "output" / "layers" / "c.psd"
    saved.parent.mkdir(parents=True, exist_ok=True)
    saved.write_bytes(GOOD[RLE])

    def options(node_id: str, name: str) -> list[str]:
        return next(item for item in node_classes[node_id].define_schema().inputs if item.id == name).options

    assert {"sub/deep/fox.ORA", "layers/c.psd [output]"} <= set(options("DiaphaneLoadLayers", "file"))
    assert "sub/a.png" in options("DiaphaneLoadTransparent", "image") and "clipspace/b.png" not in options(
        "DiaphaneLoadTransparent", "image"
    )
    assert options("DiaphaneLoadTransparent", "folder")[0] == "none" and "sub" in options("DiaphaneLoadTransparent", "folder")

    load = node_classes["DiaphaneLoadLayers"]
    assert load.validate_inputs(file="layers/c.psd [output]") is True and load.validate_inputs() is True  # it comes over a wire
    assert "There is no file" in load.validate_inputs(file="gone.psd")
    before = load.fingerprint_inputs(file="layers/c.psd [output]", groups="merge", pick="")
    saved.write_bytes(GOOD[ZIP])
    assert load.fingerprint_inputs(file="layers/c.psd [output]", groups="merge", pick="") != before
    pictures = node_classes["DiaphaneLoadTransparent"]
    assert pictures.validate_inputs(image=None, folder="sub") is True and pictures.validate_inputs(image="", folder="sub") is True
    assert "There is no file" in pictures.validate_inputs(image="gone.png", folder="none")
