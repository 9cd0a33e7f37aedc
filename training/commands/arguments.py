"""Arguments that the commands have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..checkpoint import latent_scale, load_autoencoder
from ..encode import LatentEncoder, load_offset_encoder
from ..loop import Run
from ..models.schedule import EPSILON
from ..models.unet import UNet

CLIP_TOKENIZER = "openai/clip-vit-large-patch14"


def add_model_arguments(parser: argparse.ArgumentParser, families: str) -> None:
    """The checkpoint to train on, and what belongs to it."""
    group = parser.add_argument_group("the model")
    group.add_argument("--checkpoint", type=Path, required=True, help=f"{families}, a safetensors file as ComfyUI loads it")
    group.add_argument("--encoder", type=Path, required=True, help="the offset encoder of that family")
    group.add_argument("--prediction", choices=("eps", "v"), default=EPSILON, help="what the checkpoint predicts")
    group.add_argument("--tokenizer", default=CLIP_TOKENIZER, help="CLIP's, a folder (comfy/sd1_tokenizer) or a name on the hub")


def latent_encoder_of(args: argparse.Namespace, unet: UNet) -> LatentEncoder:
    """Pictures -> the latents that a UNet of this checkpoint is trained on."""
    return LatentEncoder(load_autoencoder(args.checkpoint), load_offset_encoder(args.encoder), latent_scale(unet), args.cpu)


def add_run_arguments(parser: argparse.ArgumentParser, *, steps: int, batch: int, learning_rate: float) -> None:
    """What every run needs; the defaults are the published settings."""
    group = parser.add_argument_group("the run")
    group.add_argument(
        "--run", type=Path, required=True, help="folder for checkpoints and TensorBoard logs; an interrupted run goes on here"
    )
    group.add_argument("--steps", type=int, default=steps)
    group.add_argument("--batch", type=int, default=batch, help="pictures per step, over all devices")
    group.add_argument("--learning-rate", type=float, default=learning_rate)
    group.add_argument("--warm-up", type=int, default=100, help="steps")
    group.add_argument("--average", type=float, default=0.0, help="decay of the moving average of the weights; 0: none")
    group.add_argument("--precision", choices=("no", "bf16", "fp16"), default="bf16")
    group.add_argument("--save-every", type=int, default=500, help="steps")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--cpu", action="store_true", help="even if there is a GPU")


def run_of(args: argparse.Namespace) -> Run:
    return Run(
        folder=args.run,
        steps=args.steps,
        batch=args.batch,
        learning_rate=args.learning_rate,
        warm_up=args.warm_up,
        seed=args.seed,
        average=args.average,
        precision=args.precision,
        save_every=args.save_every,
        cpu=args.cpu,
    )


def add_data_argument(parser: argparse.ArgumentParser, what: str, side: int) -> None:
    parser.add_argument("--data", required=True, help=f'{what}; or "procedural" for made-up pictures')
    parser.add_argument("--side", type=int, default=side, help="of the square training pictures, in pixels; a multiple of 64")


def check_side(parser: argparse.ArgumentParser, side: int) -> None:
    if side <= 0 or side % 64:
        parser.error(f"--side has to be a multiple of 64, got {side}")
