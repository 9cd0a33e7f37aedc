"""Errors for a file that cannot be fetched: its name, the cause, and what the artist can do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DiaphaneError
from .catalogue import WeightFile

DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


def not_fetched(file: WeightFile, folder: Path, reason: object) -> DiaphaneError:
    """The error for a file that did not arrive in `folder`, with the way to download it by hand."""
    endpoint = os.environ.get("HF_ENDPOINT")
    mirror = f"HF_ENDPOINT is {endpoint}: check it." if endpoint else "To use a mirror of the hub, set HF_ENDPOINT and restart ComfyUI."
    return DiaphaneError(
        f"{file.name} ({file.title}): {reason}. Or download {file.url} yourself and put it in {folder}. {mirror}",
    )


def wrong_content(file: WeightFile, folder: Path, size: int, sha256: str) -> DiaphaneError:
    """The error for a complete download that is not the released file."""
    expected = f"{file.sha256} ({file.size:,} bytes)" if file.size else file.sha256
    reason = f"what was downloaded is not the released file and was deleted. Its sha256 is {sha256} ({size:,} bytes), expected {expected}"
    return not_fetched(file, folder, f"{reason}. Try again")


def check_room(file: WeightFile, folder: Path, needed: int) -> None:
    """Raise DiaphaneError if `needed` more bytes do not fit on the disk of `folder`."""
    with explain_disk(file, folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiaphaneError(
            f"{file.name} ({file.title}): the disk of {folder} has {free / 1e6:,.0f} MB free, {needed / 1e6:,.0f} MB are needed. "
            "Make room, or name a folder on another disk in extra_model_paths.yaml."
        )


@contextmanager
def explain_disk(file: WeightFile, folder: Path) -> Iterator[None]:
    """Turn OSError into DiaphaneError. Wrap only file operations: network errors are OSErrors too."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            reason = f"the disk of {folder} is full. Make room and try again: what has come so far is kept"
        elif error.errno == errno.EFBIG:
            reason = f"the disk of {folder} cannot hold a file of that size. Name a folder on another disk in extra_model_paths.yaml"
        elif error.errno == errno.EISDIR:
            reason = f"there is a folder of that name in {folder}. Move it away"
        elif error.errno in _NOT_ALLOWED:
            reason = f"{error.filename or folder} may not be written by this user ({error.strerror}). Change its permissions"
        else:
            reason = f"it could not be written ({error})"
        raise not_fetched(file, folder, reason) from error
