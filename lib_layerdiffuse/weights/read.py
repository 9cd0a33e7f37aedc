"""Model files to tensors: memory-mapped, on the CPU, and without ever running code from the file."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import DiaphaneError

_LONGEST_HEADER = 100_000_000  # bytes; the format allows no more
_PICKLES = (".pth", ".pt", ".ckpt", ".bin")
_AGAIN = "Delete it and let Diaphane download it again, or copy it anew from where you got it."


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth, .pt or .ckpt file, on the CPU.

    Tensors are views on a private memory map (but for pickles in torch's old format), so that reading a 3.6 GB file takes
    no memory until its values are used. `{"state_dict": …}` is unwrapped. Raises DiaphaneError naming the path and the
    cure for everything that can be wrong with a file; pickles with anything but tensors in them are refused, never run.
    """
    path = Path(path)
    size, start = _peek(path)
    if start.startswith(b"version https://git-lfs"):
        raise DiaphaneError(f"{path} is a git-LFS pointer, not the model itself. Run `git lfs pull` there, or download the file by hand.")
    if re.match(rb"\s*<(!doctype|html|\?xml)", start, re.IGNORECASE):
        raise DiaphaneError(f"{path} is a web page, not a model: the download link led to an HTML page. {_AGAIN}")
    # A safetensors file begins with the length of its header, whose first byte may be any: only a length out of range tells.
    is_pickle = start.startswith((b"PK", b"\x80")) and int.from_bytes(start[:8], "little") > _LONGEST_HEADER
    if path.suffix.lower() == ".safetensors" and is_pickle:
        raise DiaphaneError(
            f"{path} is a pickle under a .safetensors name. If you trust where it comes from, rename it to {path.with_suffix('.pth').name}."
        )
    if is_pickle or (path.suffix.lower() in _PICKLES and start[8:9] != b"{"):
        return _state_dict(_read_pickle(path, mmap=start.startswith(b"PK")), path)
    return _read_safetensors(path, size)


def _peek(path: Path) -> tuple[int, bytes]:
    """The size of the file and its first bytes."""
    try:
        with path.open("rb") as file:
            size, start = os.fstat(file.fileno()).st_size, file.read(256)
    except FileNotFoundError:
        raise DiaphaneError(f"{path} does not exist. Choose another file or let Diaphane download it.") from None
    except OSError as error:
        if path.is_dir():  # Windows calls this a permission error
            raise DiaphaneError(f"{path} is a folder, not a model file. Choose a file inside it.") from None
        if isinstance(error, PermissionError):
            raise DiaphaneError(f"{path} may not be read by this user. Change its permissions.") from None
        raise DiaphaneError(f"{path} could not be read: {error}.") from error
    if size == 0:
        raise DiaphaneError(f"{path} is empty. {_AGAIN}")
    return size, start


def _read_safetensors(path: Path, size: int) -> dict[str, Tensor]:
    promised = _promised_size(path, size)
    if size < promised:
        raise DiaphaneError(f"{path} is cut off: its header promises {promised:,} bytes, there are {size:,}. {_AGAIN}")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise DiaphaneError(f"{path} is damaged: {error}. {_AGAIN}") from error


def _promised_size(path: Path, size: int) -> int:
    """How many bytes the header says the file has."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or file.read(1) != b"{" or length > _LONGEST_HEADER:
            raise DiaphaneError(f"{path} is not a safetensors file, or its beginning is damaged. {_AGAIN}")
        if size < 8 + length:
            return 8 + length
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
            return 8 + length + max(ends, default=0)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DiaphaneError(f"{path} has a damaged safetensors header. {_AGAIN}") from error


def _read_pickle(path: Path, mmap: bool) -> Any:
    if mmap and not zipfile.is_zipfile(path):
        raise DiaphaneError(f"{path} is cut off: the end of the archive is missing. {_AGAIN}")
    try:
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if culprit := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise DiaphaneError(
                f"{path} holds more than tensors ({culprit[1]}), which could run code on your machine, so it was not loaded. "
                "Use a .safetensors version of it."
            ) from None
        raise DiaphaneError(f"{path} is not a model file, or it is damaged. {_AGAIN}") from error
    except MemoryError:
        raise
    except Exception as error:  # torch's readers raise whatever the damaged bytes lead them to
        raise DiaphaneError(f"{path} is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}. {_AGAIN}") from error


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise DiaphaneError(f"{path} holds a {type(content).__name__}, not a state dict. Choose a file with model weights.")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise DiaphaneError(
                f"{path} is not a state dict: {ascii(key):.120} is a {type(value).__name__}, not a tensor. "
                "Choose a file with model weights only."
            )
    if not content:
        raise DiaphaneError(f"{path} holds no tensors. Choose a file with model weights.")
    return {key: value.detach() for key, value in content.items()}
