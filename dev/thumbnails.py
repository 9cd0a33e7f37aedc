"""Pictures for the template browser: `make thumbnails` runs the bundled workflows and keeps what they save as workflows/NAME.jpg.

make thumbnails                            with the models in the models folder of the ComfyUI that is used, as the workflows name them
make thumbnails ARGS="--models stand-ins"  with small made-up ones: shows that it works, the pictures are noise (to .comfyui/thumbnails/)
make thumbnails ARGS="transparent_sdxl"    only these workflows

What is transparent lies on a checkerboard; several pictures of one workflow stand side by side, in the order of its Save Image nodes.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from dev import bundled
from dev import host as hosts
from dev.server import ComfyServer, ServerError, WorkflowError, staged
from dev.workflow import to_prompt

Json = dict[str, Any]

SIDE, GAP, CELL = 400, 8, 20
LIGHT, DARK = (236, 236, 236), (198, 198, 198)
MOST_BYTES = 40_000
QUALITIES = range(88, 20, -6)

REAL, STAND_INS = "real", "stand-ins"
# Where pictures of stand-ins go: nothing that artists should see.
TRIALS = hosts.HOME / "thumbnails"
STAND_IN_SIZE, STAND_IN_STEPS = 256, 4


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes workflows/NAME.jpg from what the workflows save.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="bundled workflows; all of them if none is named")
    parser.add_argument("--models", choices=[REAL, STAND_INS], default=REAL, help="what to run them on")
    arguments = parser.parse_args()
    names = arguments.names or bundled.names()
    if unknown := set(names) - set(bundled.names()):
        parser.error(f"there is no workflow {', '.join(sorted(unknown))}; there are {', '.join(bundled.names())}")
    try:
        return run(names, arguments.models)
    except (hosts.HostError, ServerError) as error:
        print(error, file=sys.stderr)
        return 1


def run(names: Sequence[str], models: str) -> int:
    """Runs the workflows one after another; 1 if one of them fails, after all the others."""
    host = hosts.locate()
    folder = bundled.FOLDER if models == REAL else TRIALS
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    with staged("thumbnails-", stand_ins=models == STAND_INS) as base, ComfyServer(base, extra_args=prepare(base, models, host)) as server:
        for name in names:
            try:
                pictures = results(server, name, models)
            except (WorkflowError, TimeoutError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed = 1
                continue
            path = folder / f"{name}.jpg"
            path.write_bytes(small_jpeg(arranged(pictures)))
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {len(pictures)} of {name}", flush=True)
    return failed


def prepare(base: Path, models: str, host: hosts.Host) -> list[str]:
    """Puts a picture to load into the base directory, and says where the models are; returns further arguments for the server."""
    if models == STAND_INS:
        bundled.draw_cut_out(base / "input" / bundled.EXAMPLE, STAND_IN_SIZE, STAND_IN_SIZE)
        return []
    from dev.demo import WEIGHTS

    bundled.draw_cut_out(base / "input" / bundled.EXAMPLE, 1024, 1024)
    folders = {kind: str(host.tree / "models" / kind) for kind in ("checkpoints", "loras", "controlnet")}
    config = base / "extra_model_paths.yaml"
    # JSON is YAML, and quotes any path correctly.
    layers = "\n".join(dict.fromkeys([str(WEIGHTS), str(host.tree / "models" / "layer_model")]))
    config.write_text(json.dumps({"thumbnails": {**folders, "layer_model": layers}}), encoding="utf-8")
    return ["--extra-model-paths-config", str(config)]


def results(server: ComfyServer, name: str, models: str) -> list[Image.Image]:
    """What a workflow saves, in the order of its nodes."""
    workflow = bundled.on_stand_ins(name) if models == STAND_INS else bundled.read(name)
    prompt = to_prompt(workflow, server.object_info())
    if models == STAND_INS:
        prompt = bundled.shrunk(prompt, STAND_IN_SIZE, STAND_IN_SIZE, STAND_IN_STEPS)
    written = [path for path in server.outputs(server.queue(prompt, timeout=24 * 3600)) if path.parent.name == "output"]
    return [ImageOps.exif_transpose(Image.open(path)) for path in written]


# --- pictures ---------------------------------------------------------------------------------------------------------------------------


def arranged(pictures: Sequence[Image.Image]) -> Image.Image:
    """The middles of the pictures as columns of one square, opaque."""
    square = Image.new("RGB", (SIDE, SIDE), "black")
    edges = [round(index * (SIDE + GAP) / len(pictures)) for index in range(len(pictures) + 1)]
    for picture, left, right in zip(pictures, edges, edges[1:], strict=False):
        column = ImageOps.fit(picture.convert("RGBA"), (right - left - GAP, SIDE), Image.Resampling.LANCZOS)
        ground = checkerboard(*column.size)
        ground.paste(column, mask=column.getchannel("A"))
        square.paste(ground, (left, 0))
    return square


def checkerboard(width: int, height: int) -> Image.Image:
    board = Image.new("RGB", (width, height), LIGHT)
    draw = ImageDraw.Draw(board)
    for top in range(0, height, CELL):
        for left in range(top // CELL % 2 * CELL, width, 2 * CELL):
            draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=DARK)
    return board


def small_jpeg(picture: Image.Image) -> bytes:
    """The best JPEG of at most MOST_BYTES, or the smallest there is."""
    content = b""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        content = buffer.getvalue()
        if len(content) <= MOST_BYTES:
            break
    return content


if __name__ == "__main__":
    sys.exit(main())
