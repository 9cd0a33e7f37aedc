"""Transparent pictures from a real ComfyUI, without clicking: `make demo`.

make demo                                      everything that the mini models of this pack can do, offline
make demo PROMPT="a blue glass star"           one picture from the mini models
make demo MODEL=path-or-name PROMPT="a fox"    a real SDXL, SD1.5 or FLUX.1 checkpoint; the LayerDiffuse weights are fetched on first use

MODEL is a file, or a name in the models/checkpoints folder of the ComfyUI that is used. Pictures go to .comfyui/demo/.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

from dev import bundled, comfyui
from dev.prompts import set_widgets
from dev.server import PACKS, ComfyServer, ServerError, WorkflowError, stage

Json = dict[str, Any]

RESULTS = comfyui.HOME / "demo"
# Where `make serve` has its models too; survives `make clean-host`.
WEIGHTS = comfyui.HOME / "ComfyUI" / "models" / "layer_model"
PICTURE = bundled.TRANSPARENT["mini"]
NUMBER = re.compile(r"_\d+_?$")  # that ComfyUI ends the names of files with
# Keys that only checkpoints of that family have.
SIGNS = {"SDXL": "conditioner.embedders.1.", "SD1.5": "cond_stage_model.", "Flux": "double_blocks.0."}


class DemoError(Exception):
    """The demo cannot run; the message says why and what to do."""


def main() -> int:
    model, text = os.environ.get("MODEL"), os.environ.get("PROMPT")
    try:
        installation = comfyui.locate()
        checkpoint = find_checkpoint(model, installation) if model else None
        run(installation, checkpoint, text)
    except (DemoError, comfyui.SetupError, ServerError, WorkflowError, TimeoutError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    return 0


def run(installation: comfyui.ComfyUI, checkpoint: Path | None, text: str | None) -> None:
    base = comfyui.HOME / "stages" / "demo"
    stage(base, PACKS)
    arguments: list[str] = []
    if checkpoint:
        names = [bundled.TRANSPARENT[family_of(checkpoint)]]
        arguments = ["--extra-model-paths-config", str(model_paths(base, checkpoint, installation))]
        print(f"Checkpoint: {checkpoint}")
    else:
        # In the order one learns in, the first three need no picture or file of one's own.
        names = [PICTURE] if text else [name for name in bundled.names() if bundled.is_mini(name)][:3]
        print("The mini models of this pack: small ones, which know a few shapes, colours and materials.")
        print('Anything else: make demo MODEL=path-or-name PROMPT="a glass bottle, high quality" (any SDXL, SD1.5 or FLUX.1 checkpoint)')

    print(f"Starting ComfyUI {installation.version} ...", flush=True)
    with ComfyServer(base, extra_args=arguments) as server:
        for name in names:
            paint(server, name, checkpoint, text)


def paint(server: ComfyServer, name: str, checkpoint: Path | None, text: str | None) -> None:
    """Runs a workflow and keeps what it writes."""
    prompt = bundled.prompt(name)
    prepare(prompt, checkpoint, text)
    print(f"\nRunning workflows/{name}.json", flush=True)
    titles = {node: entry["_meta"]["title"] for node, entry in prompt.items()}
    history = server.queue(prompt, Progress(titles), timeout=24 * 3600)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for path in server.outputs(history):
        kept = f"{name} preview" if path.parent.name == "temp" else NUMBER.sub("", path.stem)
        print(described(Path(shutil.copy(path, RESULTS / f"{kept}{path.suffix}"))))
    print(f"{history.seconds:.1f} s")


def described(path: Path) -> str:
    """One line about a file that was kept."""
    if path.suffix != ".png":
        return str(path)
    with Image.open(path) as image:
        alpha = ", alpha from {} to {}".format(*image.getchannel("A").getextrema()) if image.mode == "RGBA" else ""
        return f"{path}  {image.width}x{image.height} {image.mode}{alpha}"


def prepare(prompt: Json, checkpoint: Path | None, text: str | None) -> None:
    """Sets what is asked for in the prompt."""
    if checkpoint:
        set_widgets(prompt, "CheckpointLoaderSimple", ckpt_name=checkpoint.name)
    if text:
        set_widgets(prompt, "Prompt", text=text)


def find_checkpoint(model: str, installation: comfyui.ComfyUI) -> Path:
    path = Path(model).expanduser()
    if path.is_file():
        return path.absolute()
    folder = installation.tree / "models" / "checkpoints"
    files = sorted(file for file in folder.rglob("*") if file.suffix in (".safetensors", ".ckpt"))
    wanted = [file for file in files if model in (file.name, file.stem, file.relative_to(folder).as_posix())]
    if not wanted:
        there = ", ".join(file.name for file in files) or "nothing"
        raise DemoError(f"{model} is no file, and {folder} holds no checkpoint of that name (it holds {there}).")
    return wanted[0]


def family_of(checkpoint: Path) -> str:
    """The model family of this checkpoint. DemoError if its tensors belong to no family that can be transparent."""
    if checkpoint.suffix != ".safetensors":
        return "SDXL"
    with checkpoint.open("rb") as file:
        size = file.read(8)
        try:
            keys = json.loads(file.read(struct.unpack("<Q", size)[0]))
        except (struct.error, ValueError, OverflowError, MemoryError) as error:
            raise DemoError(f"{checkpoint} is no whole .safetensors file. Download it again.") from error
    for family, sign in SIGNS.items():
        if any(sign in key for key in keys):
            return family
    raise DemoError(f"{checkpoint} is no SDXL, SD1.5 or FLUX.1 checkpoint: it has none of their tensors.")


def model_paths(base: Path, checkpoint: Path, installation: comfyui.ComfyUI) -> Path:
    """Writes ComfyUI's configuration for this checkpoint, and for LayerDiffuse weights that are or will be on this machine."""
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    weights = dict.fromkeys([str(WEIGHTS), str(installation.tree / "models" / "layer_model")])
    config = base / "extra_model_paths.yaml"
    # JSON is YAML, and quotes any path correctly.
    config.write_text(json.dumps({"demo": {"checkpoints": str(checkpoint.parent), "layer_model": "\n".join(weights)}}), encoding="utf-8")
    return config


class Progress:
    """What the nodes report: a line when one begins, every few seconds, and at its end."""

    def __init__(self, titles: dict[str, str]):
        self.titles = titles
        self.state: tuple[str, bool] | None = None
        self.at = 0.0

    def __call__(self, node: str, value: float, most: float) -> None:
        state = node, value >= most
        if state != self.state or time.monotonic() - self.at >= 5:
            print(f"  {self.titles.get(node, node):24} {value / most if most else 0:4.0%}", flush=True)
            self.state, self.at = state, time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
