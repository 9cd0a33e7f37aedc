"""Teach an SD1.5 or SDXL checkpoint to generate transparent pictures (equation 7).

    python -m training.commands.diffusion --checkpoint sd_xl_base_1.0.safetensors --data cut-outs/ \\
        --encoder layer_model/vae_transparent_encoder.safetensors --run runs/transparent --out layer_model/my_transparent.safetensors

writes a delta file in the released grammar: low-rank changes of the attention (--method lora) or of every weight (--method full).
LayerDiffuse Transparent loads SDXL ones as they are (choose the file in the node); for SD1.5 train layers with one frame instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..checkpoint import load_text_encoder, load_unet
from ..data.folder import PictureFolder
from ..data.latents import LatentSet
from ..data.procedural import layers
from ..data.tokens import clip_tokenizer, procedural_tokens
from ..encode import LatentEncoder
from ..loop import save_weights, train
from ..models.lora import add_low_rank, full_deltas, low_rank_deltas
from ..stages.diffusion import DiffusionObjective
from .arguments import add_data_argument, add_model_arguments, add_run_arguments, check_side, latent_encoder_of, run_of

BLOCK = 8  # pictures that are encoded at once
PROCEDURAL_COUNT = 2000


def encode(args: argparse.Namespace, encoder: LatentEncoder) -> LatentSet:
    """Every picture of the data once, with its caption."""
    parts = []
    if args.data == "procedural":
        for first in range(0, PROCEDURAL_COUNT, BLOCK):
            drawn = layers(BLOCK, args.side, torch.Generator().manual_seed(args.seed * 1_000_003 + first))
            latents, tokens = encoder.transparent(drawn.foreground), procedural_tokens(drawn.foreground_captions)
            parts.append(LatentSet(latents.unsqueeze(1), tokens.unsqueeze(1)))
        return LatentSet.joined(parts)
    folder, tokenizer = PictureFolder(Path(args.data), args.side), clip_tokenizer(args.tokenizer)
    for first in range(0, len(folder), BLOCK):
        block = range(first, min(len(folder), first + BLOCK))
        latents = encoder.transparent(torch.stack([folder.square(index) for index in block]))
        parts.append(LatentSet(latents.unsqueeze(1), tokenizer([folder.caption(index) for index in block]).unsqueeze(1)))
    return LatentSet.joined(parts)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser, "SD1.5 or SDXL")
    add_data_argument(parser, "a folder of RGBA PNGs with .txt captions", side=1024)
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--rank", type=int, default=256, help="of the low-rank changes")
    parser.add_argument("--out", type=Path, required=True, help="the delta file")
    add_run_arguments(parser, steps=10_000, batch=16, learning_rate=1e-5)
    args = parser.parse_args(arguments)
    check_side(parser, args.side)

    torch.manual_seed(args.seed)
    unet = load_unet(args.checkpoint)
    text_encoder = load_text_encoder(args.checkpoint, unet, args.side).requires_grad_(False)
    data = encode(args, latent_encoder_of(args, unet))
    before = {key: tensor.clone() for key, tensor in unet.state_dict().items()} if args.method == "full" else {}
    if args.method == "lora":
        add_low_rank(unet, args.rank)
    train(run_of(args), DiffusionObjective(unet, text_encoder, data, prediction=args.prediction))
    save_weights(full_deltas(unet, before) if args.method == "full" else low_rank_deltas(unet), args.out)


if __name__ == "__main__":
    main()
