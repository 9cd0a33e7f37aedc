"""Times of what this pack does, beside the textbook way to do the same: `make bench`. Prints tables; judges nothing.

make bench                          everything
make bench ARGS="decode pixels"     some of it: decode, sharing, correcting, patching, pixels
make bench ARGS="decode --dtype bfloat16"

Networks have their full size and random weights. Each part runs in a process of its own: what one leaves in memory would show in the
times of the next.
"""

# ComfyUI is not typed, and only there once it has been imported.
# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor
from torch.utils.benchmark import Compare, Timer

from dev.in_process import import_comfyui, sampling
from dev.stand_ins.shapes import table
from lib_layerdiffuse.nets.eight_passes import ORIENTATIONS, estimate_rgba, turn, turn_back
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
from lib_layerdiffuse.pixels.bleed import bleed_rgb
from lib_layerdiffuse.pixels.composite import Layer, Layers
from lib_layerdiffuse.weights.read import read_state_dict

from .models import random_alpha_vae, random_model


class Case(NamedTuple):
    """One figure of a table: what is done, and whether by this pack ("ours") or in the plain way ("textbook")."""

    work: str
    way: str
    run: Callable[[], object]


def decode(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The transparent decoder on pictures of some sizes."""
    new = {"device": device, "dtype": dtype}
    decoder = TransparentDecoder.from_shapes(table("facts/transparent_decoder"), **new).eval().requires_grad_(False)
    for side, count, passes in ((512, 1, 1), (512, 1, 8), (512, 4, 1), (1024, 1, 1), (1024, 1, 8), (2048, 1, 1)):
        pictures = torch.rand(count, 3, side, side, **new), torch.randn(count, 4, side // 8, side // 8, **new)
        work = f"{count} x {side}x{side}, passes: {passes}"
        yield Case(work, "ours", partial(estimate_rgba, decoder, *pictures, passes))
        yield Case(work, "textbook", partial(decode_plainly, decoder, *pictures, passes))


def decode_plainly(decoder: TransparentDecoder, pixel: Tensor, latent: Tensor, passes: int) -> Tensor:
    """Pass by pass as published, every result kept until the end."""
    results = []
    with torch.enable_grad():  # the network then runs layer by layer; nothing of it wants a gradient
        for flip, quarters in ORIENTATIONS[:passes]:
            results.append(turn_back(decoder(turn(pixel, flip, quarters), turn(latent, flip, quarters)).clamp(0, 1), flip, quarters))
    return torch.stack(results).median(dim=0).values


def sharing(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """A step of SD1.5 with layers that share attention, against the same batch without."""
    from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention

    plain = random_model("SD1.5", device, dtype)
    for frames in (1, 3):
        weights = {key: torch.randn(shape) * 0.02 for key, shape in table(f"facts/sd15_attention_sharing_f{frames}").items()}
        shared = share_attention(plain, weights)
        for side in (256, 512):
            latent = torch.randn(frames, 4, side // 8, side // 8, device=device)
            text = torch.randn(frames, 77, 768, device=device, dtype=dtype)
            for way, patcher in (("ours", shared), ("textbook", plain)):
                with sampling(patcher, torch.full((frames,), 5.0, device=device)) as predict:
                    yield Case(f"{frames} of {side}x{side}", way, partial(predict, latent, text))


def patching(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The largest delta file: opened, merged with SDXL, and what a step costs while it is off and on."""
    from comfy.model_management import load_models_gpu

    from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas

    plain = random_model("SDXL", device, torch.float16, dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deltas.safetensors"
        shapes = table("facts/xl_transparent_conv")
        safetensors.torch.save_file({key: torch.zeros(shape, dtype=torch.float16) for key, shape in shapes.items()}, path)
        yield Case("open the file", "ours", partial(read_state_dict, path))
        yield Case("open the file", "textbook", lambda: safetensors.torch.load(path.read_bytes()))

        weights = read_state_dict(path)
        strengths = itertools.cycle((1.0, 0.9))
        yield Case(
            "merge it with another weight than before",
            "ours",
            lambda: load_models_gpu([apply_deltas(plain, weights, weight=next(strengths))]),
        )
        latent = torch.randn(1, 4, 32, 32, device=device)
        text, pooled = (torch.randn(*shape, device=device, dtype=dtype) for shape in ((1, 77, 2048), (1, 2816)))
        ranged = apply_deltas(plain, weights, start=0.5, end=1.0)
        for when, sigma in (("outside of", 5.0), ("inside of", 1.0)):
            for way, patcher in (("ours", ranged), ("textbook", plain)):
                with sampling(patcher, torch.full((1,), sigma, device=device)) as predict:
                    yield Case(f"a step of 256x256 {when} the range", way, partial(predict, latent, text, y=pooled))


def correcting(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """A correction of one SD1.5 layer, whole or in a box of a quarter of its size, beside a step with guidance."""
    from lib_layerdiffuse.comfyui.patch.corrections import Corrections

    plain, vae = random_model("SD1.5", device, dtype), random_alpha_vae()
    corrections = Corrections(vae, lambda rgba: rgba.roll(1, dims=3), [], 1.0)
    for side in (256, 512):
        latent = torch.randn(1, 4, side // 8, side // 8, device=device)
        for share, what in ((1, "whole"), (2, "in a box of half its sides")):
            part = latent[..., : side // 8 // share, : side // 8 // share]
            yield Case(f"one layer of {side}x{side}, {what}", "ours", partial(corrections._difference, plain.model, part))
        text = torch.randn(2, 77, 768, device=device, dtype=dtype)
        with sampling(plain, torch.full((2,), 5.0, device=device)) as predict:
            yield Case(f"a step of {side}x{side} with guidance", "textbook", partial(predict, latent.repeat(2, 1, 1, 1), text))


def pixels(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Bleeding and compositing. Pictures are float32, whatever networks work in."""
    layers = Layers(1024, 1024, tuple(Layer(torch.rand(1, 1024, 1024, 4, device=device), opacity=0.9) for _ in range(10)))
    yield Case("bleed, 1024x1024", "ours", partial(bleed_rgb, layers.layers[0].image))
    yield Case("composite of 10 layers, 1024x1024", "ours", layers.flatten)
    yield Case("composite of 10 layers, 1024x1024", "textbook", partial(composite_plainly, layers))


def composite_plainly(layers: Layers) -> Tensor:
    """Whole pictures over one another, as the formula reads (Compositing and Blending Level 1, section 5.1)."""
    canvas = torch.zeros_like(layers.layers[0].image)
    for layer in layers.layers:
        alpha, alpha_below = layer.image[..., 3:] * layer.opacity, canvas[..., 3:]
        alpha_out = alpha + alpha_below * (1.0 - alpha)
        colour = alpha * layer.image[..., :3] + (1.0 - alpha) * alpha_below * canvas[..., :3]
        canvas = torch.cat((colour / alpha_out, alpha_out), dim=-1)
    return canvas


PARTS = {part.__name__: part for part in (decode, sharing, correcting, patching, pixels)}


@torch.inference_mode()
def measure(part: str, device: torch.device, dtype: torch.dtype) -> None:
    """Prints the table of one part: the median of a few runs each."""
    found: list[Any] = []
    for case in PARTS[part](device, dtype):
        timer = Timer(
            "run()",
            globals={"run": case.run},
            label=f"{part}, {dtype} on {device}",
            sub_label=case.work,
            description=case.way,
            num_threads=torch.get_num_threads(),
        )
        found.append(timer.blocked_autorange(min_run_time=1.0))
        print(f"{part}: {case.work}, {case.way}: {found[-1].median:.3g} s", file=sys.stderr, flush=True)
    Compare(found).print()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.bench", description="Prints tables of times.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"{', '.join(PARTS)}; all if none is named")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="default: float16 on a graphics card, else float32")
    arguments = parser.parse_args()
    parts = arguments.parts or list(PARTS)
    if len(parts) > 1:
        options = ["--dtype", arguments.dtype] if arguments.dtype else []
        return max(subprocess.run([sys.executable, "-m", "dev.bench", part, *options]).returncode for part in parts)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, arguments.dtype or ("float16" if device.type == "cuda" else "float32"))
    with tempfile.TemporaryDirectory() as base:
        import_comfyui(Path(base), *(["--cpu"] if device.type == "cpu" else []))
        measure(parts[0], device, dtype)
    return 0


if __name__ == "__main__":
    sys.exit(main())
