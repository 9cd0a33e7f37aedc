"""Files in ComfyUI's output folder: their names, the workflow that is kept in them, and whole files or none."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import folder_paths
from comfy.cli_args import args

from ...errors import DiaphaneError
from ...weights.errors import DISK_FULL

TOO_MUCH = (*DISK_FULL, errno.EFBIG)  # the last: a file larger than the file system allows

Metadata = Mapping[str, str]
Result = dict[str, str]


def workflow_metadata(prompt: Any, extra: Mapping[str, Any] | None) -> dict[str, str]:
    """What ComfyUI's own nodes write into the pictures that they save; nothing if it was started with --disable-metadata."""
    if args.disable_metadata:
        return {}
    found = {} if prompt is None else {"prompt": prompt}
    return {key: json.dumps(value) for key, value in {**found, **(extra or {})}.items()}


def output_place(prefix: str, width: int, height: int) -> tuple[Path, str, int, str]:
    """Where a file goes: (folder, beginning of the name, number, the folder inside output).

    prefix: as in Save Image; it never leads out of the output folder. Raises DiaphaneError if no file can be called that.
    """
    output = folder_paths.get_output_directory()
    _check_name(prefix)
    try:
        with explaining(output):
            folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, output, width, height)
    except ValueError as error:  # another drive, which older versions of ComfyUI do not say
        raise DiaphaneError(f"{prefix!r:.120} leads out of the output folder. Change filename_prefix.") from error
    return Path(folder), name, counter, subfolder


def _check_name(prefix: str) -> None:
    """Raises DiaphaneError for characters that no file name can hold; for others, writing the file raises an OSError."""
    try:
        possible = b"\0" not in os.fsencode(prefix)
    except UnicodeEncodeError:  # half of a surrogate pair
        possible = False
    if not possible:
        raise DiaphaneError(f"No file can be called {prefix!r:.120}. Change filename_prefix.")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only once it is complete; nothing is left over otherwise."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w+b") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_files(*paths: Path) -> Iterator[list[BinaryIO]]:
    """Files that belong together: all of them appear under their names, or none."""
    with ExitStack() as named:
        for path in paths:
            named.callback(path.unlink, missing_ok=True)
        with ExitStack() as files:
            yield [files.enter_context(whole_file(path)) for path in paths]
        named.pop_all()


@contextmanager
def explaining(folder: str | Path) -> Iterator[None]:
    """Turn an OSError of the disk into a DiaphaneError."""
    try:
        yield
    except OSError as error:
        if error.errno in TOO_MUCH:
            reason = f"The disk of {folder} is full. Make room and queue again."
        else:
            why = error.strerror or error
            reason = f"It could not be saved in {folder} ({why}). Change filename_prefix, or the folder's permissions."
        raise DiaphaneError(reason) from error


def listed(path: Path, subfolder: str, kind: str = "output") -> Result:
    """A file as the frontend lists it. kind: output or temp."""
    return {"filename": path.name, "subfolder": subfolder, "type": kind}


def paths(files: Iterable[Result]) -> str:
    """Files as a sentence names them: a/picture.png, a/picture.json"""
    return ", ".join(f"{file['subfolder']}/{file['filename']}".lstrip("/") for file in files)
