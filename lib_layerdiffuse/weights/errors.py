"""What to tell the artist when a file cannot be fetched: its name, what went wrong, and each way out."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DiaphaneError
from .catalogue import WeightFile
from .download import Offline, Refused, Unreachable

DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_LOCKED = (errno.EACCES, errno.EPERM, errno.EROFS)


def explain_hub(file: WeightFile, folder: Path, error: Refused | Unreachable | Offline) -> DiaphaneError:
    """The error for a hub that does not hand the file over."""
    if isinstance(error, Offline):
        reason = "HF_HUB_OFFLINE is set, so it was not downloaded. Unset it and restart ComfyUI"
    elif isinstance(error, Unreachable):
        reason = f"the hub could not be reached or broke off ({error}). Try again: what has come so far is kept"
    elif error.status in (401, 403):
        reason = f"the hub refuses access (HTTP {error.status}). Open the link in a browser to see what it asks for"
    elif error.status == 404:
        reason = "the hub does not have it there any more (HTTP 404). Look for a newer Diaphane"
    else:
        reason = f"the hub has trouble (HTTP {error.status}). Try again in a few minutes"
    return DiaphaneError(f"{file.name} ({file.title}): {reason}. {_by_hand(file, folder)}")


def explain_wrong_content(file: WeightFile, folder: Path, size: int, sha256: str) -> DiaphaneError:
    """The error for a complete download that is not the released file."""
    expected = f"{file.sha256} ({file.size:,} bytes)" if file.size else file.sha256
    return DiaphaneError(
        f"{file.name} ({file.title}): what was downloaded is not the released file and was deleted. "
        f"Its sha256 is {sha256} ({size:,} bytes), expected {expected}. Try again. {_by_hand(file, folder)}"
    )


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
    """Turn OSError into DiaphaneError. Wrap nothing but file operations: network errors are OSErrors too."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            reason = f"the disk of {folder} is full. Make room and try again: what has come so far is kept"
        elif error.errno == errno.EFBIG:
            reason = f"the disk of {folder} cannot hold a file of that size. Name a folder on another disk in extra_model_paths.yaml"
        elif error.errno in (errno.EISDIR, errno.ENOTEMPTY):
            reason = f"there is a folder of that name in {folder}. Move it away"
        elif error.errno in _LOCKED:
            reason = f"{error.filename or folder} may not be written by this user ({error.strerror}). Change its permissions"
        else:
            reason = f"it could not be written ({error})"
        raise DiaphaneError(f"{file.name} ({file.title}): {reason}. {_by_hand(file, folder)}") from error


def _by_hand(file: WeightFile, folder: Path) -> str:
    endpoint = os.environ.get("HF_ENDPOINT")
    mirror = f"HF_ENDPOINT is {endpoint}: check it." if endpoint else "To use a mirror of the hub, set HF_ENDPOINT and restart ComfyUI."
    return f"Or download {file.url} yourself and put it in {folder}. {mirror}"
