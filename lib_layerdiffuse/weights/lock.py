"""One download at a time: between threads, between processes, between ComfyUIs that share a model folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger("diaphane")


@contextmanager
def alone(lock_file: Path, tick: Callable[[], None], seconds: float = 0.1) -> Iterator[None]:
    """Hold the lock of that file, calling `tick` every few `seconds` while another holds it; what `tick` raises ends the wait.

    The lock goes with the process that holds it. Raises OSError where the lock file cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file)
    waiting = False
    while True:
        try:
            lock.acquire(timeout=seconds)
            break
        except Timeout:
            if not waiting:
                logger.info("Waiting for another download of the same file (%s)", lock_file)
            waiting = True
        except NotImplementedError:  # a file system without locks: the checksum will tell
            logger.debug("%s cannot be locked", lock_file)
            break
        tick()
    try:
        yield
    finally:
        lock.release()
