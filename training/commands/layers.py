"""Teach an SD1.5 checkpoint to generate layers that fit together (equations 8-9), or transparent pictures with shared attention.

    python -m training.commands.layers --checkpoint v1-5.safetensors --encoder layer_model/layer_sd15_vae_transparent_encoder.safetensors \\
        --data layers/ --frames foreground background blended --run runs/joint --out layer_model/my_joint.safetensors

writes an attention sharing file with the released key names. The three layers of a picture are files of one name in --data:
NAME.foreground.png (RGBA), NAME.background.png, and their captions NAME.foreground.txt, NAME.background.txt and NAME.blended.txt;
training.commands.dataset makes such a folder from transparent pictures. With --given, one layer steers the others as a picture.

    ... --frames foreground blended --given background --area --start-from layer_model/layer_sd15_bg2fg.safetensors

writes a brush (SmartBrush, in layers), which paints only inside of an area and predicts where the object is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..checkpoint import load_text_encoder, load_unet
from ..data.latents import LatentSet
from ..data.layer_folder import BACKGROUND, BLENDED, FOREGROUND, LayerFolder
from ..data.procedural import layers
from ..data.tokens import clip_tokenizer, procedural_tokens
from ..encode import LatentEncoder, encode_layers
from ..loop import load_weights, save_weights, train
from ..stages.brush import FRAMES as BRUSH_FRAMES
from ..stages.brush import BrushObjective, brush_from
from ..stages.diffusion import DiffusionObjective, sharing_for
from .arguments import add_data_argument, add_model_arguments, add_run_arguments, check_side, latent_encoder_of, run_of

CONTROL_WIDTHS = (32, 32, 64, 64, 128, 128, 256, 256)
BLOCK = 4
PROCEDURAL_COUNT = 1000


def encode(args: argparse.Namespace, encoder: LatentEncoder) -> LatentSet:
    """Every set of layers once, with its captions."""
    if args.data == "procedural":
        blocks = (
            layers(BLOCK, args.side, torch.Generator().manual_seed(args.seed * 1_000_003 + first))
            for first in range(0, PROCEDURAL_COUNT, BLOCK)
        )
        tokenizer = procedural_tokens
    else:
        folder = LayerFolder(Path(args.data), args.side)
        blocks = (folder.block(first, BLOCK) for first in range(0, len(folder), BLOCK))
        tokenizer = clip_tokenizer(args.tokenizer)
    return LatentSet.joined(encode_layers(encoder, block, args.frames, args.given, tokenizer, args.area) for block in blocks)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser, "SD1.5")
    add_data_argument(parser, "a folder of layers", side=512)
    parser.add_argument("--frames", nargs="+", choices=(FOREGROUND, BACKGROUND, BLENDED), default=[FOREGROUND, BACKGROUND, BLENDED])
    parser.add_argument("--given", choices=(FOREGROUND, BACKGROUND), help="the layer that is there already")
    parser.add_argument("--area", action="store_true", help="a brush: an area says where the object goes, and how precisely")
    parser.add_argument("--start-from", type=Path, help="with --area: the file for layers beside a background that is trained on")
    parser.add_argument("--rank", type=int, default=256)
    parser.add_argument("--out", type=Path, required=True, help="the attention sharing file")
    add_run_arguments(parser, steps=10_000, batch=16, learning_rate=1e-5)
    args = parser.parse_args(arguments)
    check_side(parser, args.side)
    if args.given in args.frames:
        parser.error(f"--given {args.given} cannot be among --frames, which are what is generated")
    if args.area and (args.given, tuple(args.frames)) != (BACKGROUND, BRUSH_FRAMES):
        parser.error(f"--area goes with --given {BACKGROUND} --frames {' '.join(BRUSH_FRAMES)}")
    if args.start_from and not args.area:
        parser.error("--start-from goes with --area")

    torch.manual_seed(args.seed)
    unet = load_unet(args.checkpoint).requires_grad_(False)
    if unet.layout.linear:
        parser.error(f"{args.checkpoint.name} is an SDXL checkpoint; attention sharing is for SD1.5")
    text_encoder = load_text_encoder(args.checkpoint, unet, args.side).requires_grad_(False)
    data = encode(args, latent_encoder_of(args, unet))
    sharing = sharing_for(unet, len(args.frames), args.rank, CONTROL_WIDTHS if args.given else ())
    if args.area:
        start = load_weights(args.start_from) if args.start_from else sharing.state_dict()
        sharing = brush_from(start, unet.layout.model_channels)
    objective = BrushObjective if args.area else DiffusionObjective
    train(run_of(args), objective(unet, text_encoder, data, prediction=args.prediction, sharing=sharing))
    save_weights(sharing.state_dict(), args.out)


if __name__ == "__main__":
    main()
