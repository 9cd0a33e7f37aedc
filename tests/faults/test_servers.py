"""What takes a server, or two: a file that both fetch at once, a death while saving, and other packs at the same table."""

# pyright: reportMissingImports=false
from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psd_tools import PSDImage

from dev import comfyui
from dev.prompts import Json, encode, loader, node, text_to_image
from dev.server import ComfyServer, ServerError, stage, unstage
from tests.unit.hub import Hub

pytestmark = pytest.mark.live

NAME = "vae_transparent_encoder.safetensors"
PACKS = Path(__file__).parent / "packs"
OLD = "LayeredDiffusion"


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def servers(hub: Hub) -> Iterator[list[ComfyServer]]:
    """Two servers that share a models folder, which lacks one file. The first has this pack twice, and the older pack."""
    from dev.stand_ins.weights import write_all

    stages = comfyui.HOME / "stages"
    stages.mkdir(parents=True, exist_ok=True)
    bases = [Path(tempfile.mkdtemp(prefix="faults-", dir=stages)) for _ in range(2)]
    first, second = bases
    try:
        packs = {comfyui.PACK: comfyui.ROOT, "stand_ins": comfyui.ROOT / "dev" / "stand_ins", "zz_trouble": PACKS / "trouble"}
        stage(first, {**packs, f"{comfyui.PACK}-main": comfyui.ROOT, "older": PACKS / "older"})
        stage(second, packs)
        write_all(first / "models")
        for folder in ("layer_model", "loras"):
            (first / "models" / folder).mkdir(exist_ok=True)
        hub.content = (first / "models" / "layer_model" / NAME).read_bytes()
        (first / "models" / "layer_model" / NAME).unlink()
        shared = first / "models" / "layer_model"
        (second / "shared.yaml").write_text(f"shared:\n    layer_model: {shared.as_posix()}\n")
        env = {"HF_ENDPOINT": hub.endpoint, "DIAPHANE_TEST_SHA256": hashlib.sha256(hub.content).hexdigest()}
        with (
            ComfyServer(first, env=env) as one,
            ComfyServer(second, env=env, extra_args=["--extra-model-paths-config", str(second / "shared.yaml")]) as two,
        ):
            yield [one, two]
    finally:
        for base in bases:
            unstage(base)


def encoding(seed: int) -> Json:
    """Needs the file that is missing."""
    return {
        "loader": loader("SDXL"),
        "picture": node("EmptyImage", width=64, height=64, batch_size=1, color=seed),
        "encode": encode(["picture", 0], ["loader", 2]),
        "decode": node("VAEDecode", samples=["encode", 0], vae=["loader", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="encoded"),
    }


def layered(seed: int) -> Json:
    pictures = {f"picture{n}": node("EmptyImage", width=64, height=64, batch_size=1, color=seed + n) for n in range(2)}
    inputs: dict[str, Any] = {f"layers.layer{n}": [f"picture{n}", 0] for n in range(2)}
    return {**pictures, "save": node("DiaphaneSaveLayers", filename_prefix="saved/picture", format="PSD", names="", **inputs)}


def test_two_servers_fetch_one_file(servers: list[ComfyServer], hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.hub.PATH", f"/some/repo/resolve/abc/{NAME}")
    folder = servers[0].base_directory / "models" / "layer_model"
    hub.script = ["hang"]
    results: list[Any] = []
    threads = [threading.Thread(target=lambda s=server: results.append(s.outputs(s.queue(encoding(1))))) for server in servers]
    for thread in threads:
        thread.start()
    threading.Timer(2.0, hub.go_on.set).start()
    for thread in threads:
        thread.join()
    assert len(results) == 2 and all(results)
    # Both have one model folder or look into it; whoever was second waited, or found it there.
    assert hashlib.sha256((folder / NAME).read_bytes()).hexdigest() == hashlib.sha256(hub.content).hexdigest()
    assert not list(folder.glob(".diaphane/*.partial"))
    assert len(hub.paths) == 1


def test_a_server_killed_while_saving(servers: list[ComfyServer]) -> None:
    server = servers[1]
    folder = server.base_directory / "output" / "saved"
    [first] = [path for path in server.outputs(server.queue(layered(1))) if path.suffix == ".psd"]
    (server.base_directory / "die").touch()
    with pytest.raises((ServerError, OSError)):
        server.queue(layered(7))
    (server.base_directory / "die").unlink()
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == [first.name]
    server.stop()
    server.start()
    [second] = [path for path in server.outputs(server.queue(layered(7))) if path.suffix == ".psd"]
    assert second != first and len(PSDImage.open(second)) == 2
    assert sorted(path.name for path in folder.iterdir()) == sorted([first.name, second.name])


def test_two_copies_and_the_older_pack(servers: list[ComfyServer]) -> None:
    server = servers[0]
    log = server.log.read_text(encoding="utf-8", errors="replace")
    found = server.object_info()
    assert log.count("Diaphane is installed twice") == 1
    warning = next(line for line in log.splitlines() if "installed twice" in line)
    copies = [f"{server.base_directory / 'custom_nodes' / name}" for name in (comfyui.PACK, f"{comfyui.PACK}-main")]
    assert all(f"{copy} " in warning for copy in copies), warning
    assert "Remove one of the two folders" in warning
    # All nodes come from one copy: they know one another's layers.
    ours = {info["python_module"] for node_id, info in found.items() if node_id.startswith("Diaphane")}
    assert len(ours) == 1 and ours <= {f"custom_nodes.{comfyui.PACK}", f"custom_nodes.{comfyui.PACK}-main"}
    assert server.outputs(server.queue(layered(3)))
    assert server.outputs(server.queue(text_to_image(seed=5)))


def test_the_older_pack_keeps_its_ids_and_the_log_says_so(servers: list[ComfyServer]) -> None:
    server = servers[0]
    found = {node_id: info["python_module"] for node_id, info in server.object_info().items() if node_id.startswith(OLD)}
    older = {node_id for node_id, module in found.items() if module == "custom_nodes.older"}
    assert older == {f"{OLD}Apply", f"{OLD}Decode"}
    assert len(found) == 8  # the others are ours
    log = server.log.read_text(encoding="utf-8", errors="replace")
    [line] = [line for line in log.splitlines() if "Another pack has the nodes" in line]
    assert f"{OLD}Apply" in line and f"{OLD}Decode" in line and f"{OLD}JointApply" not in line
    # Alone, this pack has them all.
    assert {info["python_module"] for node_id, info in servers[1].object_info().items() if node_id.startswith(OLD)} == {
        f"custom_nodes.{comfyui.PACK}"
    }
