"""Programs that tests drive, from Debian where the machine allows it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from dev.steps import step, tool


def ensure(find: Callable[[], Path | None], package: str, variable: str) -> Path | None:
    """What `find` finds. If there is none, Debian's package is installed first where there are apt-get and root.

    variable: of the environment; if it names a program, none is installed beside it. SetupError if the installation fails.
    """
    found = find()
    if found or os.environ.get(variable) or shutil.which("apt-get") is None or os.geteuid() != 0:
        return found
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    step(f"{package} for tests, index", lambda: tool(*apt, "update"))
    step(f"{package} for tests", lambda: tool(*apt, "install", "--no-install-recommends", "-y", package))
    return find()
