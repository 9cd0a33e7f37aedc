"""Programs that tests drive, from Debian where the machine allows it."""

from __future__ import annotations

import os
import shutil

from dev.steps import tool


def can_install() -> bool:
    """Whether install() may work: it takes apt-get and root."""
    return shutil.which("apt-get") is not None and hasattr(os, "geteuid") and os.geteuid() == 0


def install(package: str) -> None:
    """Raises HostError if the installation fails."""
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    tool([*apt, "update"])
    tool([*apt, "install", "--no-install-recommends", "-y", package])
