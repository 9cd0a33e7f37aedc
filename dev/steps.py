"""What the set-up is made of: steps that are skipped when nothing has changed, and links to folders."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path


class SetupError(Exception):
    """ComfyUI cannot be built or found; the message says why and what to do."""


def tool(*command: str | Path) -> None:
    """Runs a program. SetupError with the end of what it says if it fails."""
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    if answer.returncode:
        tail = "\n".join(answer.stdout.splitlines()[-20:])
        raise SetupError(f"{tail}\n\nTo repeat just this: {shlex.join(map(str, command))}")


def step(name: str, action: Callable[[], object]) -> None:
    print(f"{name} ... ", end="", flush=True)
    started = time.monotonic()
    try:
        action()
    except (OSError, SetupError) as error:
        print("failed", flush=True)
        raise SetupError(f"Step failed: {name}\n\n{error}\nTo go on: make host") from error
    print(f"{time.monotonic() - started:.1f} s", flush=True)


def stamped_step(name: str, stamp: Path, state: str, action: Callable[[], object]) -> None:
    """Runs a step unless its stamp says that this state is reached. While it runs, and after a failure, there is no stamp."""
    if read_stamp(stamp) == state:
        return
    stamp.unlink(missing_ok=True)
    step(name, action)
    stamp.write_text(state + "\n")


def read_stamp(path: Path) -> str | None:
    return path.read_text().strip() if path.is_file() else None


def digest(*parts: bytes | str) -> str:
    result = hashlib.sha256()
    for part in parts:
        result.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return result.hexdigest()


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def only_one_builder(folder: Path) -> Iterator[None]:
    """Two commands started at once build one after the other; the lock goes with the process, so it cannot be left behind."""
    folder.mkdir(exist_ok=True)
    # The lock of an empty database is the same on every system.
    with contextlib.closing(sqlite3.connect(folder / "building.lock", timeout=3600, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def link_directory(target: Path, link: Path) -> None:
    """Makes `link` lead to the folder `target`, replacing a link that leads elsewhere but never a real folder."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and link.resolve() == target.resolve():
        return
    remove_link(link)
    if link.exists():
        raise SetupError(f"{link} is a real file or folder; it should be a link to {target}. Move it away and run the command again.")
    if os.name == "nt":
        # A junction needs no administrator, unlike a symbolic link.
        tool("cmd", "/c", "mklink", "/J", link, target)
    else:
        link.symlink_to(target, target_is_directory=True)


def remove_link(link: Path) -> None:
    """Removes a link or junction and leaves what it leads to; does nothing to a real folder."""
    if link.is_symlink():
        link.unlink()
        return
    with contextlib.suppress(OSError):
        os.readlink(link)
        # Still here: a junction.
        link.rmdir()


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
