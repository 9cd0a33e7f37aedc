"""Downloads against a hub on 127.0.0.1 that cuts, lies, redirects and dies on demand."""

# pyright: reportMissingImports=false
from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.weights import fetch
from tests.unit.hub import CONTENT, PATH, ROOT, Hub, Watch, failure, hub, partial_of, process, weight_file

__all__ = ["hub"]


# a good day


def test_fresh_download(hub: Hub, tmp_path: Path) -> None:
    folder, watch = tmp_path / "models" / "layer_model", Watch(tmp_path / "models" / "layer_model")
    path = fetch.ensure(weight_file(), [folder], watch)
    assert path == folder / "layer.safetensors" and path.read_bytes() == CONTENT
    assert [done for done, _ in watch.told] == sorted(done for done, _ in watch.told)
    assert watch.told[-1] == (len(CONTENT), len(CONTENT))
    assert {total for _, total in watch.told} == {len(CONTENT)}
    assert watch.threads == {threading.get_ident()}
    assert hub.paths == [PATH] and hub.ranges == [None]
    assert {entry.name for entry in folder.iterdir()} == {"layer.safetensors", ".diaphane"}
    assert not list((folder / ".diaphane").glob("*.partial"))


def test_without_progress_and_without_known_size(hub: Hub, tmp_path: Path) -> None:
    assert fetch.ensure(weight_file(size=None), [tmp_path]).read_bytes() == CONTENT


def test_what_is_there_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (second / "mine").mkdir(parents=True)
    (second / "mine" / "layer.safetensors").write_bytes(CONTENT)
    assert fetch.ensure(weight_file(), [first, second]) == second / "mine" / "layer.safetensors"
    assert not first.exists() and not hub.paths


def test_redirects_are_followed_with_the_range(hub: Hub, tmp_path: Path) -> None:
    hub.script = ["redirect", ("cut", 1_000_000), "redirect"]
    assert fetch.ensure(weight_file(), [tmp_path]).read_bytes() == CONTENT
    assert hub.paths == [PATH, "/cdn" + PATH] * 2
    assert hub.ranges[3] is not None


def test_no_token_leaves_the_machine(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch.ensure(weight_file(), [tmp_path])
    assert "authorization" not in hub.headers[0]


def test_mirror_is_read_at_the_time_of_use(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.endpoint}/mirror/")
    assert weight_file().url == f"{hub.endpoint}/mirror{PATH}"
    fetch.ensure(weight_file(), [tmp_path])
    assert hub.paths == ["/mirror" + PATH]


# a bad day


def test_wrong_hash(hub: Hub, tmp_path: Path) -> None:
    hub.content = CONTENT[:-1] + b"!"
    found = hashlib.sha256(hub.content).hexdigest()
    failure(weight_file(), tmp_path, "not the released file and was deleted", found, f"{weight_file().sha256} (1,500,000 bytes)")
    assert not partial_of(tmp_path, weight_file()).exists()
    hub.content = CONTENT
    assert fetch.ensure(weight_file(), [tmp_path]).read_bytes() == CONTENT
    assert hub.ranges[-1] is None


@pytest.mark.parametrize("content", [b"<html>please log in</html>", CONTENT + b"more"])
def test_wrong_size(hub: Hub, tmp_path: Path, content: bytes) -> None:
    hub.content = content
    failure(weight_file(), tmp_path, f"({len(content):,} bytes), expected", "(1,500,000 bytes)")
    assert not partial_of(tmp_path, weight_file()).exists()


def test_wrong_size_in_the_catalogue_does_not_reject_a_good_file(hub: Hub, tmp_path: Path) -> None:
    assert fetch.ensure(weight_file(size=len(CONTENT) + 5), [tmp_path]).read_bytes() == CONTENT
    shutil.rmtree(tmp_path)
    assert fetch.ensure(weight_file(size=7), [tmp_path]).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "refuses access (HTTP 401)"), (403, "refuses access (HTTP 403)"), (404, "does not have it there any more (HTTP 404)"),
     (429, "has trouble (HTTP 429)"), (500, "has trouble (HTTP 500)")],
)  # fmt: skip
def test_refusals(hub: Hub, tmp_path: Path, status: int, words: str) -> None:
    hub.always = ("status", status)
    failure(weight_file(), tmp_path, words, f"HF_ENDPOINT is {hub.endpoint}: check it")
    assert len(hub.paths) == 1


def test_hub_down(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.shutdown()
    hub.server_close()
    failure(weight_file(), tmp_path, "could not be reached")


def test_endpoint_that_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "mirror")
    failure(weight_file(), tmp_path, "could not be reached", "HF_ENDPOINT is mirror: check it")


def test_silent_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.script, hub.always = ["hang"], ("cut", 0)
    failure(weight_file(), tmp_path, "broke off")
    assert partial_of(tmp_path, weight_file()).stat().st_size > 0


def test_offline(hub: Hub, tmp_path: Path) -> None:
    with process(tmp_path, HF_HUB_OFFLINE="1") as offline:
        text = offline.communicate(timeout=60)[0]
    assert text.startswith("DiaphaneError layer.safetensors (SDXL joint layers): HF_HUB_OFFLINE is set")
    assert weight_file().url in text and f"put it in {tmp_path}" in text and not hub.paths


def test_offline_with_the_file_there(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "layer.safetensors").write_bytes(CONTENT)
    with process(tmp_path, HF_HUB_OFFLINE="1") as offline:
        assert offline.communicate(timeout=60)[0].strip() == weight_file().sha256


def test_disk_too_small(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(DiaphaneError, match=r"has 1 MB free, 2 MB are needed"):
        fetch.ensure(weight_file(), [tmp_path])


def test_disk_fills_up_meanwhile(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, written = fetch._write, []

    def write(handle, data: bytes) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(whole(handle, data))

    monkeypatch.setattr(fetch, "_write", write)
    failure(weight_file(), tmp_path, f"the disk of {tmp_path} is full")
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    assert fetch.ensure(weight_file(), [tmp_path]).read_bytes() == CONTENT
    assert hub.ranges[1] is not None


def test_folder_that_is_not_writable(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    failure(weight_file(), tmp_path, "may not be written by this user (Permission denied). Change its permissions")


def test_folder_that_is_a_file(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("oops")
    with pytest.raises(DiaphaneError, match="could not be written"):
        fetch.ensure(weight_file(), [tmp_path / "models"])


def test_no_folder(hub: Hub) -> None:
    with pytest.raises(DiaphaneError, match=r"no folder to put layer\.safetensors in"):
        fetch.ensure(weight_file(), [])


# links


@pytest.mark.skipif(os.name == "nt", reason="links need privileges there")
def test_a_folder_may_itself_be_a_link(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "big disk").mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "big disk")
    fetch.ensure(weight_file(), [tmp_path / "models"])
    assert (tmp_path / "big disk" / "layer.safetensors").read_bytes() == CONTENT


# locate


def test_locate_order(tmp_path: Path) -> None:
    file, first, second = weight_file(), tmp_path / "first", tmp_path / "second"
    assert fetch.locate(file, [tmp_path / "nowhere", first]) is None
    for place in (second, first / "b", first / "a", first / ".hidden", first / "a" / "deep"):
        place.mkdir(parents=True)
    (first / ".hidden" / file.name).touch()
    (first / "a" / "deep" / file.name).touch()
    (first / "Layer.safetensors.partial").touch()
    assert fetch.locate(file, [first, second]) is None
    for path in (second / file.name, first / "b" / file.name, first / "a" / file.name, first / file.name):
        path.touch()
        assert fetch.locate(file, [first, second]) == path


def test_a_folder_of_that_name_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "layer.safetensors").mkdir()
    assert fetch.locate(weight_file(), [tmp_path]) is None


def test_odd_size_is_said_once(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "layer.safetensors"
    path.write_bytes(b"converted")
    with caplog.at_level(logging.WARNING, "diaphane"):
        assert fetch.ensure(weight_file(), [tmp_path]) == fetch.ensure(weight_file(), [tmp_path]) == path
    assert [record.getMessage() for record in caplog.records] == [f"{path} has 9 bytes, the released file 1500000: taken as it is."]


def test_importing_is_light() -> None:
    code = "import sys; import lib_layerdiffuse.weights.fetch; print({'huggingface_hub', 'filelock', 'torch'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "set()"
