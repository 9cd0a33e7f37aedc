"""What runs in a host finds that host again, and other Pythons are found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dev import host as hosts
from dev import pythons


@pytest.mark.parametrize("version", ["0.18.2", hosts.DEFAULT_VERSION])
def test_what_runs_in_a_host_locates_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(hosts, "HOME", tmp_path)
    monkeypatch.delenv("COMFYUI_DIR", raising=False)
    monkeypatch.setenv("DIAPHANE_HOST", "0.27.0")
    home = tmp_path if version == hosts.DEFAULT_VERSION else tmp_path / "hosts" / version
    python = hosts.venv_python(home / "venv")
    for file in (home / "ComfyUI" / "main.py", python):
        file.parent.mkdir(parents=True)
        file.touch()
    asked_for = hosts.locate(version)
    assert (asked_for.version, asked_for.tree) == (version, home / "ComfyUI")
    for name, value in asked_for.environment().items():
        monkeypatch.setenv(name, value)
    assert hosts.locate() == asked_for


def test_a_version_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(hosts.HostError, match=r"0\.1\.0 is not among the versions that can be built: 0\.30\.0"):
        hosts.locate("0.1.0")


def test_finds_another_python_or_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    present = f"{sys.version_info[0]}.{sys.version_info[1]}"
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / f"python{present}").symlink_to(sys.executable)
    assert pythons.find_python(present) == tmp_path / f"python{present}"
    # There, but for another version.
    (tmp_path / "python3.99").symlink_to(sys.executable)
    with pytest.raises(hosts.HostError, match="No Python 3.99 found"):
        pythons.find_python("3.99")
