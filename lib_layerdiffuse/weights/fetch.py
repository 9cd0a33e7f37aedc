"""Finding the released files in the model folders, and fetching those that are missing.

A file gets its own name only when it is complete and its sha256 is right. Until then it is written to a hidden sub-folder beside its
place, where the next attempt, also of another process, continues.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from io import FileIO
from pathlib import Path

from ..errors import DiaphaneError
from .catalogue import WeightFile
from .download import HubError, receive
from .errors import check_room, explain_disk, not_fetched, wrong_content

logger = logging.getLogger("diaphane")

_HIDDEN = ".diaphane"
_TRIES = 3  # in a row without a byte, once the hub has answered
_PAUSE = 1.0  # seconds between tries
_INTERVAL = 0.1  # seconds between calls of on_progress
_odd_sizes: set[Path] = set()  # already warned about


def locate(file: WeightFile, folders: Sequence[Path]) -> Path | None:
    """The first file of that name in the folders or one visible sub-folder deep, or None."""
    for folder in map(Path, folders):
        with suppress(OSError):  # the folder does not exist or is not readable
            inside = sorted(sub for sub in folder.iterdir() if not sub.name.startswith("."))
            for path in (folder / file.name, *(sub / file.name for sub in inside)):
                if path.is_file():
                    return path
    return None


def ensure(file: WeightFile, folders: Sequence[Path], on_progress: Callable[[int, int], None] | None = None) -> Path:
    """The path of the file, downloaded into the first folder if it is in none of them.

    `on_progress(done_bytes, total_bytes)` is called from the calling thread, at most ten times a second, never with less than
    before; also while another process downloads and while the checksum is computed. Whatever it raises ends the download
    at once and is not changed; what has come so far is kept for the next call. A silent connection is noticed after
    HF_HUB_DOWNLOAD_TIMEOUT (10 s). Raises DiaphaneError where the hub, the disk or the downloaded content is at fault.
    """
    if found := locate(file, folders):
        _check_size(file, found)
        return found
    if not folders:
        raise DiaphaneError(f"There is no folder to put {file.name} in. Add a layer_model folder to extra_model_paths.yaml.")

    folder = Path(folders[0])
    hidden, target = folder / _HIDDEN, folder / file.name
    partial = hidden / f"{file.name}.{file.sha256[:12]}.partial"
    progress = _Progress(on_progress, file.size or 0)
    with explain_disk(file, folder):
        hidden.mkdir(parents=True, exist_ok=True)
        if target.is_dir():  # before the download, not after it
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    with _locked(file, folder, lambda: progress(_size(partial))):
        if found := locate(file, folders):  # another process was quicker
            return found
        logger.info("Downloading %s (%s) to %s", file.url, file.title, folder)
        with explain_disk(file, folder):
            handle = FileIO(partial, "a+")  # unbuffered, so that a full disk shows when writing and not when closing
        with handle:
            _download(file, folder, handle, progress)
            digest = _sha256(handle, progress)
        if digest != file.sha256:
            size = _size(partial)
            with explain_disk(file, folder):
                partial.unlink()
            raise wrong_content(file, folder, size, digest)
        with explain_disk(file, folder):
            os.replace(partial, target)
    _check_size(file, target)
    return target


class _Progress:
    """Calls on_progress with rising numbers, not too often, and always at the end."""

    def __init__(self, on_progress: Callable[[int, int], None] | None, total: int) -> None:
        self.on_progress, self.total, self.done, self.last = on_progress, total, 0, float("-inf")

    def __call__(self, done: int = 0, total: int | None = None) -> None:
        self.done = max(self.done, done)
        self.total = max(total or self.total, self.done)
        now = time.monotonic()
        if self.on_progress and (now - self.last >= _INTERVAL or self.done == self.total):
            self.last = now
            self.on_progress(self.done, self.total)


@contextmanager
def _locked(file: WeightFile, folder: Path, poll: Callable[[], None]) -> Iterator[None]:
    """One download of a file at a time, between threads, processes, and ComfyUIs that share a model folder.

    `poll` is called while another one holds the lock; what it raises ends the wait. The lock ends with the process that holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / _HIDDEN / f"{file.name}.lock")
    waiting = False
    try:
        while not lock.is_locked:
            try:
                with explain_disk(file, folder), suppress(Timeout):
                    lock.acquire(timeout=_INTERVAL)
            except NotImplementedError:  # a file system without locks: the checksum finds two writers
                break
            if not lock.is_locked:
                if not waiting:
                    logger.info("Waiting for another download of %s.", file.name)
                waiting = True
                poll()
        yield
    finally:
        lock.release()


def _download(file: WeightFile, folder: Path, handle: FileIO, progress: _Progress) -> None:
    """Complete the partial file from its end on, also after cut connections."""
    tries = 1  # no second try before the hub has sent anything: the artist is waiting
    position = furthest = handle.seek(0, os.SEEK_END)
    while position != file.size:
        try:
            with closing(receive(file.url, position)) as pieces:
                for number, (start, total, data) in enumerate(pieces):
                    if number == 0:
                        check_room(file, folder, (total or 0) - position)
                    with explain_disk(file, folder):
                        if start != position:  # the server cannot resume
                            handle.truncate(start)
                        _write(handle, data)
                    position = start + len(data)
                    if position > furthest:
                        furthest, tries = position, _TRIES
                    progress(position, total)
            break
        except HubError as error:
            if error.status == 416 and position:
                position = handle.truncate(0)  # longer than the file at the hub
                continue
            tries -= 1
            if not tries or not error.retry:
                raise not_fetched(file, folder, error) from error
            logger.warning("%s: the connection broke off. Continuing at byte %d.", file.name, position)
            _wait(_PAUSE, progress)
    with explain_disk(file, folder):
        os.fsync(handle.fileno())


def _sha256(handle: FileIO, progress: _Progress) -> str:
    # Of what is on the disk, not of what was written: this also finds two writers on a disk whose locks do not work.
    digest = hashlib.sha256()
    handle.seek(0)
    while data := handle.read(1 << 24):
        digest.update(data)
        progress()
    return digest.hexdigest()


def _wait(seconds: float, progress: _Progress) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        progress()
        time.sleep(_INTERVAL)


def _write(handle: FileIO, data: bytes) -> None:
    """Append all of the data: one call may write a part of it."""
    rest = memoryview(data)
    while rest:
        rest = rest[handle.write(rest) :]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # not there yet, or not there any more
        return 0


def _check_size(file: WeightFile, path: Path) -> None:
    size = path.stat().st_size
    if file.size not in (None, size) and path not in _odd_sizes:
        _odd_sizes.add(path)
        logger.warning("%s has %d bytes, the released file %d: taken as it is.", path, size, file.size)
