"""Continuous integration skips nothing but what a platform cannot have, in however many processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FILES = {
    "test_one.py": "def test_passes(): pass\ndef test_skipped(): pytest.skip('no time')",
    "test_two.py": "@pytest.mark.skip('no wish')\ndef test_marked(): pass\n@pytest.mark.xfail\ndef test_known(): assert False",
    "test_three.py": "def test_optional(): pytest.skip('optional: no such device')",
}
MODULE = "pytest.skip('no module', allow_module_level=True)\ndef test_never(): pass"


def summary(folder: Path, *arguments: str, ci: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", *arguments, str(folder)]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    # As when nothing has started these tests in turn.
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[-1] if done.stdout else done.stderr


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_skip_fails_under_ci_alone(tmp_path: Path, workers: str) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_text(f"import pytest\n{content}")
    options = ("-n", workers, "--dist", "loadfile")
    # What a mark skips fails before it is called, which pytest counts as an error.
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error" in summary(tmp_path, *options, ci="true")
    assert "1 passed, 3 skipped, 1 xfailed" in summary(tmp_path, *options, ci="")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_skipped_file_fails_under_ci(tmp_path: Path, workers: str) -> None:
    (tmp_path / "test_module.py").write_text(f"import pytest\n{MODULE}")
    assert "error" in summary(tmp_path, "-n", workers, ci="true")
