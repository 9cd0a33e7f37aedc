"""Programs that tests drive, from Debian where the machine allows it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dev.steps import step, tool


def ensure(find: Callable[[], Path | None], package: str, *, name: str, variable: str) -> Path | None:
    """What `find` finds, installed first if there is none and the machine allows it; None if it does not.

    name: what the step is called. variable: of the environment; if it names a program, none is installed beside it.
    Raises SetupError if the installation fails.
    """
    found = find()
    if found is None and not os.environ.get(variable) and can_install():
        step(name, partial(install, package))
        found = find()
    return found


def can_install() -> bool:
    """Whether install() may work: it takes apt-get and root."""
    return shutil.which("apt-get") is not None and hasattr(os, "geteuid") and os.geteuid() == 0


def install(package: str) -> None:
    """Raises SetupError if the installation fails."""
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    tool(*apt, "update")
    tool(*apt, "install", "--no-install-recommends", "-y", package)
