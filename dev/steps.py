"""What the set-up is made of: steps that are timed, skipped when nothing has changed, and explained when they fail."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


class HostError(Exception):
    """The host cannot be built or found; the message says why and what to do."""


class ToolError(HostError):
    """A tool that a step called has failed."""

    def __init__(self, command: Sequence[str], output: str):
        super().__init__(f"{' '.join(command)} failed")
        self.command = command
        self.output = output


def tool(command: Sequence[str]) -> None:
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    if answer.returncode:
        raise ToolError(command, answer.stdout)


def step(name: str, action: Callable[[], None]) -> None:
    say(f"{name} ... ", end="")
    started = time.monotonic()
    try:
        action()
    except ToolError as error:
        say("failed")
        tail = "\n".join(error.output.splitlines()[-20:])
        raise HostError(f"Step failed: {name}\n\n{tail}\n\nTo repeat just this: {' '.join(error.command)}\nTo go on: make host") from error
    except HostError:
        say("failed")
        raise
    except (OSError, tarfile.TarError) as error:
        say("failed")
        raise HostError(f"Step failed: {name}\n{error}\nTo go on: make host") from error
    say(f"{time.monotonic() - started:.1f} s")


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)


def read_stamp(path: Path) -> str | None:
    return path.read_text().strip() if path.is_file() else None


def stamped_step(name: str, stamp: Path, state: str, action: Callable[[], None]) -> None:
    """Runs a step unless its stamp says that this state is reached. While it runs, and after a failure, there is no stamp."""
    if read_stamp(stamp) == state:
        return
    stamp.unlink(missing_ok=True)
    step(name, action)
    write_stamp(stamp, state)


def write_stamp(path: Path, state: str) -> None:
    written = path.with_name(path.name + ".partial")
    written.write_text(state + "\n")
    written.replace(path)


def digest(*parts: bytes | str) -> str:
    result = hashlib.sha256()
    for part in parts:
        result.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return result.hexdigest()


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def python_and_platform() -> str:
    return f"{platform.python_implementation()} {sys.version_info[0]}.{sys.version_info[1]} {platform.system()} {platform.machine()}"


@contextlib.contextmanager
def only_one_builder(folder: Path) -> Iterator[None]:
    """Two commands started at once build one after the other; the lock goes with the process, so it cannot be left behind."""
    folder.mkdir(exist_ok=True)
    with (folder / "building.lock").open("a+") as file:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            while True:
                try:
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:
                    continue
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def link_directory(target: Path, link: Path) -> None:
    """Makes `link` lead to the folder `target`, replacing a link that leads elsewhere but never a real folder."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and link.resolve() == target.resolve():
        return
    remove_link(link)
    if link.exists():
        raise HostError(f"{link} is a real file or folder; it should be a link to {target}. Move it away and run the command again.")
    if os.name == "nt":
        # A junction needs no administrator, unlike a symbolic link.
        tool(["cmd", "/c", "mklink", "/J", str(link), str(target)])
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
