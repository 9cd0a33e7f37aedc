"""Finding the released files in the model folders, and fetching those that are missing.

A file appears under its own name only when it is complete and its sha256 is right. Until then it grows in a hidden
sub-folder beside its place, from where the next attempt, also of another process, goes on.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from io import FileIO
from pathlib import Path

from ..errors import DiaphaneError
from .catalogue import WeightFile
from .download import Offline, Refused, Unreachable, receive
from .lock import alone
from .trouble import check_room, explain_disk, explain_hub, explain_wrong_content

logger = logging.getLogger("diaphane")

Progress = Callable[[int, int], None]

_HIDDEN = ".diaphane"
_TRIES = 3  # in a row without a byte, once the hub has answered
_PAUSE = 1.0  # seconds between tries
_BEAT = 0.1  # seconds between calls of on_progress
_odd_sizes: set[Path] = set()  # already warned about


def locate(file: WeightFile, folders: Sequence[Path]) -> Path | None:
    """The first file of that name in the folders or one visible sub-folder deep, or None."""
    for folder in map(Path, folders):
        with suppress(OSError):  # not there or not readable: nothing to find in it
            inside = sorted(sub for sub in folder.iterdir() if not sub.name.startswith("."))
            for path in (folder / file.name, *(sub / file.name for sub in inside)):
                if path.is_file():
                    return path
    return None


def ensure(file: WeightFile, folders: Sequence[Path], on_progress: Progress | None = None) -> Path:
    """The path of the file, downloaded into the first folder if it is in none of them.

    `on_progress(done_bytes, total_bytes)` is called from the calling thread, at most ten times a second, never with less than
    before; also while another process downloads and while the checksum is computed. Whatever it raises ends the download
    at once and untouched, what has come so far is kept for the next call. A silent connection is noticed after
    HF_HUB_DOWNLOAD_TIMEOUT (10 s). Raises DiaphaneError where the hub, the disk or the downloaded content is at fault.
    """
    if found := locate(file, folders):
        _check_size(file, found)
        return found
    if not folders:
        raise DiaphaneError(f"There is no folder to put {file.name} in. Add a layer_model folder to extra_model_paths.yaml.")

    folder = Path(folders[0])
    hidden, target = folder / _HIDDEN, folder / file.name
    partial, lock = hidden / f"{file.name}.{file.sha256[:12]}.partial", f"{file.name}.lock"
    beat = _Beat(on_progress, file.size or 0)
    with explain_disk(file, folder):
        hidden.mkdir(parents=True, exist_ok=True)
        if hidden.is_symlink():
            raise DiaphaneError(f"{hidden} is a link, and downloads must not leave their folder. Delete it.")
        os.close(_no_links(str(hidden / lock), os.O_CREAT | os.O_RDWR))  # a folder that may not be written shows here
        if target.is_dir():  # now, not when everything has come
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    with alone(hidden / lock, lambda: beat(_length(partial))):
        if found := locate(file, folders):  # another process was quicker
            return found
        logger.info("Downloading %s (%s) to %s", file.url, file.title, folder)
        with explain_disk(file, folder):
            handle = _open(partial)
        with handle:
            _download(file, folder, handle, beat)
            digest = _sha256(handle, beat)
        if digest != file.sha256:
            size = _length(partial)
            with explain_disk(file, folder):
                partial.unlink()
            raise explain_wrong_content(file, folder, size, digest)
        with explain_disk(file, folder):
            os.replace(partial, target)
    _check_size(file, target)
    return target


class _Beat:
    """on_progress with its promises: monotonic, not too often, and the end is always told."""

    def __init__(self, on_progress: Progress | None, total: int) -> None:
        self.on_progress, self.total, self.done, self.last = on_progress, total, 0, float("-inf")

    def __call__(self, done: int = 0, total: int | None = None) -> None:
        self.done = max(self.done, done)
        self.total = max(total or self.total, self.done)
        now = time.monotonic()
        if self.on_progress and (now - self.last >= _BEAT or self.done == self.total):
            self.last = now
            self.on_progress(self.done, self.total)


def _download(file: WeightFile, folder: Path, handle: FileIO, beat: _Beat) -> None:
    """Complete the partial file, going on where it ends, also after cut connections."""
    tries = 1  # a hub that has given nothing yet gets no second chance: the artist is waiting
    position = furthest = handle.seek(0, os.SEEK_END)
    while position != file.size:
        try:
            with closing(receive(file.url, position)) as pieces:
                for number, (start, total, data) in enumerate(pieces):
                    if number == 0:
                        check_room(file, folder, (total or 0) - position)
                    with explain_disk(file, folder):
                        if start != position:  # the server cannot resume
                            handle.seek(start)
                            handle.truncate()
                        _write(handle, data)
                    position = start + len(data)
                    if position > furthest:
                        furthest, tries = position, _TRIES
                    beat(position, total)
            break
        except (Refused, Unreachable, Offline) as error:
            if isinstance(error, Refused) and error.status == 416 and position:
                position = handle.truncate(0)  # longer than the file at the hub: of no use
                handle.seek(0)
                continue
            tries -= 1
            if not tries or isinstance(error, Offline) or (isinstance(error, Refused) and error.status < 500):
                raise explain_hub(file, folder, error) from error
            logger.warning("%s: %s. Going on at byte %d.", file.name, error, position)
            _wait(_PAUSE, beat)
    with explain_disk(file, folder):
        os.fsync(handle.fileno())


def _sha256(handle: FileIO, beat: _Beat) -> str:
    # Read back rather than summed up while writing: this also catches two writers on a disk whose locks do not work.
    digest = hashlib.sha256()
    handle.seek(0)
    while data := handle.read(1 << 24):
        digest.update(data)
        beat()
    return digest.hexdigest()


def _wait(seconds: float, beat: _Beat) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        beat()
        time.sleep(_BEAT)


def _no_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _open(partial: Path) -> FileIO:
    # Unbuffered, so that a full disk shows when writing and not when closing.
    return FileIO(partial, "r+" if _length(partial) else "w+", opener=_no_links)


def _write(handle: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[handle.write(rest) :]


def _length(path: Path) -> int:
    """Bytes in a regular file, 0 for anything else."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _check_size(file: WeightFile, path: Path) -> None:
    size = path.stat().st_size
    if file.size not in (None, size) and path not in _odd_sizes:
        _odd_sizes.add(path)
        logger.warning("%s has %d bytes, the released file %d: taken as it is.", path, size, file.size)
