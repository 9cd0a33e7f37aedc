"""The authors' sanity recipes on the released LayerDiffuse files, for whoever has a graphics card: `make verify-released`.

make verify-released CHECKPOINT=path-or-name             an SDXL, SD1.5 or FLUX.1-dev checkpoint: the recipes of its family
make verify-released ARGS="first second third"           several of them, one after the other
make verify-released ARGS=--dry-run                      every recipe at a small size on stand-in models, offline: does this program run?

The released files are fetched where they are missing, and their sha256 is checked. Each recipe paints the authors' picture, encodes it
with Transparent VAE Encode and decodes that again. What to judge is printed; pictures go to .comfyui/verified/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dev import bundled, comfyui, demo, prompts
from dev.server import PACKS, ComfyServer, ServerError, WorkflowError, stage, staged
from dev.stand_ins.swap import swap_prompt
from dev.steps import sha256_of
from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.pixels.backdrop import over_backdrop
from lib_layerdiffuse.pixels.coverage import coverage
from lib_layerdiffuse.weights.catalogue import Family, Role, lookup
from lib_layerdiffuse.weights.fetch import ensure

Json = dict[str, Any]

RESULTS = comfyui.HOME / "verified"
TEXT = "an apple, high quality"  # everything else of the recipes is in the bundled workflows
METHODS = {"SDXL": ("attention", "conv"), "SD1.5": ("attention",), "Flux": ("attention",)}
ROLES = {"attention": Role.TRANSPARENT_ATTENTION, "conv": Role.TRANSPARENT_CONV}
SMALL = 64


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The authors' sanity recipes on the released LayerDiffuse files.")
    parser.add_argument("checkpoints", nargs="*", help="files, or names in models/checkpoints")
    parser.add_argument("--dry-run", action="store_true", help="on stand-in models, small and offline")
    options = parser.parse_args(arguments)
    if not options.checkpoints and not options.dry_run:
        parser.error("Name a checkpoint, or try --dry-run.")
    try:
        if options.dry_run:
            with staged("verify-", stand_ins=True) as base, ComfyServer(base) as server:
                for family in METHODS:
                    verify(server, family, None)
        installation = comfyui.locate()
        for checkpoint in [demo.find_checkpoint(name, installation) for name in options.checkpoints]:
            verify_checkpoint(checkpoint, installation)
    except (demo.DemoError, DiaphaneError, comfyui.SetupError, ServerError, WorkflowError, TimeoutError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    print("\nA right result is one apple on the checkerboard: opaque, with a thin translucent edge and nothing around it, twice the same.")
    return 0


def verify_checkpoint(checkpoint: Path, installation: comfyui.ComfyUI) -> None:
    """All recipes of its family, in a server of their own, so that times and memory are those of this checkpoint."""
    family = demo.family_of(checkpoint)
    print(f"Checkpoint: {checkpoint}\nComfyUI {installation.version}")
    base = stage(comfyui.HOME / "stages" / "verify", PACKS)
    paths = demo.model_paths(base, checkpoint, installation)
    fetch(Family(family), [ROLES[method] for method in METHODS[family]], installation)
    with ComfyServer(base, extra_args=["--extra-model-paths-config", str(paths)]) as server:
        verify(server, family, checkpoint)


def fetch(family: Family, roles: Sequence[Role], installation: comfyui.ComfyUI) -> None:
    """Sees to it that the released files are there, in the folders where the server looks. DemoError for a file that is another one."""
    folders = [demo.WEIGHTS, installation.tree / "models" / "layer_model"]
    for file in dict.fromkeys(lookup(family, role) for role in (*roles, Role.DECODER, Role.ENCODER)):
        path = ensure(file, folders, partial(demo.Progress({}), file.name))
        if sha256_of(path) != file.sha256:
            raise demo.DemoError(f"{path} is not the released file: its sha256 is another. Move it away; it is fetched anew.")
        print(f"{path}  is the released file")


def verify(server: ComfyServer, family: str, checkpoint: Path | None) -> None:
    """Runs the recipes of a model family and says what came of them; without a checkpoint on stand-ins, small."""
    for method in METHODS[family]:
        prompt = recipe(bundled.prompt(bundled.TRANSPARENT[family]), family, method)
        if checkpoint is None:
            prompt = swap_prompt(prompt, family)
            prompts.set_widgets(prompt, width=SMALL, height=SMALL, steps=2)
        demo.prepare(prompt, checkpoint, TEXT)
        print(f"\n{family}, {method}", flush=True)
        memory = Memory(server)
        history = server.queue(prompt, memory, timeout=24 * 3600)
        memory()
        pictures = {path.name.partition("_")[0]: opened(path) for path in server.outputs(history)}
        for name in ("painted", "again"):
            print(f"  {name:8} {coverage(pictures[name])}")
        print(f"  sheet    {sheet([pictures['painted'], pictures['again']], f'{family}_{method}')}")
        print(f"  {history.seconds:.1f} s with loading; most memory seen: {memory}")


def recipe(prompt: Json, family: str, method: str) -> Json:
    """A bundled workflow's prompt with this method, which also encodes the picture and decodes it again."""
    ids = {entry["class_type"]: node for node, entry in prompt.items()}
    result = {node: entry for node, entry in prompt.items() if entry["class_type"] not in ("SaveImage", "DiaphanePreview")}
    result[ids["DiaphaneTransparent"]]["inputs"]["method"] = method
    picture, vae = [ids["DiaphaneVAEDecode"], 0], [ids["CheckpointLoaderSimple"], 2]
    return result | {
        "encode": prompts.encode(picture, vae, family=family),
        "decode": prompts.decode(["encode", 0], vae, family=family, passes=8),
        "save": prompts.save(picture, "painted"),
        "save again": prompts.save(["decode", 0], "again"),
    }


class Memory:
    """The most that the server's process, and all processes on the graphics card, were seen to hold when a node reported a step."""

    def __init__(self, server: ComfyServer):
        self.server = server
        self.resident = self.card = 0

    def __call__(self, *step: object) -> None:
        self.resident = max(self.resident, self.server.process().memory_info().rss)
        devices = [device for device in self.server.get("/system_stats")["devices"] if device["type"] != "cpu"]
        self.card = max(self.card, *(device["vram_total"] - device["vram_free"] for device in devices), 0)

    def __str__(self) -> str:
        return f"{self.resident / 2**30:.1f} GiB of RAM, {self.card / 2**30:.1f} GiB on the graphics card"


def opened(path: Path) -> Tensor:
    """A PNG with alpha as [1, H, W, 4] in [0, 1]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGBA")))[None] / 255


def sheet(pictures: Sequence[Tensor], name: str) -> Path:
    """Writes pictures side by side on a checkerboard."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.png"
    whole = over_backdrop(torch.cat([*pictures], dim=2))[0]
    Image.fromarray((whole * 255).round().to(torch.uint8).numpy()).save(path)
    return path


if __name__ == "__main__":
    sys.exit(main())
