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
    "test_four.py": "pytest.skip('no module', allow_module_level=True)\ndef test_never(): pass",
}


# What a mark skips, and a whole file, fails before a test is called, which pytest counts as an error.
@pytest.mark.parametrize(
    ("workers", "ci", "expected"),
    [
        ("2", "true", "1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors"),
        ("0", "", "1 passed, 4 skipped, 1 xfailed"),
    ],
)
def test_a_skip_fails_under_ci_alone(tmp_path: Path, workers: str, ci: str, expected: str) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_text(f"import pytest\n{content}")
    options = ["-p", "conftest", "-p", "no:cacheprovider", "--continue-on-collection-errors", "-n", workers, "--dist", "loadfile"]
    # As when nothing has started these tests in turn.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"CI": ci, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert expected in done.stdout.splitlines()[-1], done.stdout + done.stderr
