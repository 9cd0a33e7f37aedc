"""Model files in every state that artists' disks hold them in."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.weights.read import read_state_dict

TENSORS = {"a.weight": torch.arange(12, dtype=torch.float16).reshape(3, 4), "b": torch.ones(5, dtype=torch.bfloat16)}


def same(found: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(TENSORS) and all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


def fails(path: Path, *words: str) -> None:
    with pytest.raises(DiaphaneError) as caught:
        read_state_dict(path)
    for word in (str(path), *words):
        assert word in str(caught.value), caught.value


@pytest.fixture
def good(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "good.safetensors")
    return tmp_path / "good.safetensors"


def test_safetensors(good: Path) -> None:
    found = read_state_dict(good)
    assert type(found) is dict and same(found)
    assert all(value.device.type == "cpu" for value in found.values())


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [dict, OrderedDict, lambda content: {"state_dict": content, "epoch": 3}])
def test_pickles(tmp_path: Path, name: str, zipped: bool, wrap) -> None:
    torch.save(wrap(TENSORS), tmp_path / name, _use_new_zipfile_serialization=zipped)
    found = read_state_dict(tmp_path / name)
    assert type(found) is dict and same(found)


def test_parameters_become_tensors(tmp_path: Path) -> None:
    torch.save({"w": torch.nn.Parameter(torch.ones(2))}, tmp_path / "x.pt")
    assert not read_state_dict(tmp_path / "x.pt")["w"].requires_grad


def test_safetensors_under_another_name(good: Path) -> None:
    assert same(read_state_dict(good.rename(good.with_suffix(".ckpt"))))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's process statistics")
@pytest.mark.parametrize("name", ["big.safetensors", "big.pth"])
def test_reading_takes_no_memory(tmp_path: Path, name: str) -> None:
    big, path = {"big": torch.ones(64, 1 << 20, dtype=torch.uint8)}, tmp_path / name
    save_file(big, path) if path.suffix == ".safetensors" else torch.save(big, path)
    del big

    def unshared() -> int:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")

    read_state_dict(path)  # first-time imports
    before = unshared()
    found = read_state_dict(path)
    assert unshared() - before < 16 << 20
    assert found["big"].sum() == 64 << 20


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_changing_a_tensor_leaves_the_file_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_file(TENSORS, path) if path.suffix == ".safetensors" else torch.save(TENSORS, path)
    before = path.read_bytes()
    read_state_dict(path)["b"].zero_()
    assert path.read_bytes() == before


def test_missing(tmp_path: Path) -> None:
    fails(tmp_path / "no.safetensors", "does not exist", "let Diaphane download it")


def test_folder(tmp_path: Path) -> None:
    fails(tmp_path, "is a folder")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="optional: everything is readable for root")
def test_no_permission(good: Path) -> None:
    good.chmod(0)
    fails(good, "may not be read")


def test_no_permission_as_told_by_the_system(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    fails(good, "may not be read by this user", "Change its permissions")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.safetensors", b"", ["is empty", "download it again"]),
        ("x.pth", b"", ["is empty"]),
        ("x.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", ["git-LFS pointer", "git lfs pull"]),
        ("x.safetensors", b"<!DOCTYPE html><html><head>", ["is a web page"]),
        ("x.pth", b"\n <html lang=en>", ["is a web page"]),
        ("x.safetensors", b"abc", ["is not a safetensors file"]),
        ("x.safetensors", bytes(64), ["is not a safetensors file"]),
        ("x.safetensors", (20).to_bytes(8, "little") + b"{" + b"x" * 40, ["damaged safetensors header"]),
        ("x.safetensors", (4).to_bytes(8, "little") + b'{"a"', ["damaged safetensors header"]),
        ("x.safetensors", (2).to_bytes(8, "little") + b"{}" + b"rest", ["is damaged"]),
        ("x.pth", b"PK\x03\x04" + bytes(100), ["is cut off"]),
        ("x.pth", b"\x80\x02garbage", ["damaged"]),
        ("x.pth", b"just text, no model at all", ["damaged"]),
    ],
)
def test_broken_bytes(tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    fails(tmp_path / name, *words)


def test_truncated_safetensors_gives_both_numbers(good: Path) -> None:
    content = good.read_bytes()
    for length in (len(content) - 1, len(content) // 2, 12):
        good.write_bytes(content[:length])
        fails(good, "is cut off", f"there are {length:,}", "download it again")
    good.write_bytes(content[:-1])
    fails(good, f"promises {len(content):,} bytes")


def test_every_truncation_of_a_pickle_is_clear(tmp_path: Path) -> None:
    for zipped in (True, False):
        path = tmp_path / "x.pth"
        torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
        content = path.read_bytes()
        for length in range(1, len(content) - 1, 97):
            path.write_bytes(content[:length])
            fails(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_under_a_safetensors_name(tmp_path: Path, zipped: bool) -> None:
    torch.save(TENSORS, tmp_path / "x.safetensors", _use_new_zipfile_serialization=zipped)
    fails(tmp_path / "x.safetensors", "pickle under a .safetensors name", "rename it to x.pth")


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("name", ["x.pth", "x.ckpt", "x.safetensors"])
def test_code_in_a_pickle_never_runs(tmp_path: Path, how: str, name: str) -> None:
    path, trap = tmp_path / name, tmp_path / "sprung"
    if how == "plain":
        path.write_bytes(pickle.dumps({"a": Trap(trap)}))
    else:
        torch.save({"a": Trap(trap)}, path, _use_new_zipfile_serialization=how == "zip")
    fails(path)
    assert not trap.exists()
    if how != "plain" and path.suffix != ".safetensors":
        fails(path, "posix.mkdir" if os.name == "posix" else "mkdir", "could run code", ".safetensors version")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(2)], ["holds a list, not a state dict"]),
        ({"a": 1.5}, ["'a' is a float, not a tensor"]),
        ({0: torch.ones(2)}, ["0 is a Tensor"]),
        ({"state_dict": [1]}, ["'state_dict' is a list"]),
        ({}, ["holds no tensors"]),
    ],
)
def test_not_a_state_dict(tmp_path: Path, content: object, words: list[str]) -> None:
    torch.save(content, tmp_path / "x.pth")
    fails(tmp_path / "x.pth", *words)


def test_messages_are_short(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"\x80\x02nonsense")
    with pytest.raises(DiaphaneError) as caught:
        read_state_dict(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)
    assert not re.search(r"weights_only|pytorch\.org", str(caught.value))


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_header_length_that_begins_like_a_pickle(tmp_path: Path, start: bytes) -> None:
    # The released transparency decoder is such a file: its header is 0xDD80 bytes long.
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    length = next(n for n in range(len(header), 1 << 16) if n.to_bytes(8, "little").startswith(start))
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + bytes(4))
    assert read_state_dict(path)["x"].tolist() == [0.0]
