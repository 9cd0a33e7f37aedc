"""Train an offset encoder and a transparency decoder for the VAE of a checkpoint.

    python -m training.commands.transparency --vae sd_xl_base_1.0.safetensors --data cut-outs/ --run runs/sdxl --out layer_model/

writes vae_transparent_encoder.safetensors and vae_transparent_decoder.safetensors, which the nodes load as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from lib_layerdiffuse.nets.offset_encoder import OFFSET_SCALE, OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder

from ..checkpoint import load_autoencoder
from ..data.folder import PictureFolder
from ..data.procedural import transparent_pictures
from ..loop import Draws, load_weights, save_weights, train
from ..stages.transparency import Pictures, TransparencyObjective, TransparencySettings, new_decoder, new_encoder, scaled
from .arguments import add_data_argument, add_run_arguments, check_side, run_of

ENCODER_WIDTHS = (4, 32, 32, 64, 64, 128, 128, 256, 256)
DECODER_WIDTHS = (32, 32, 64, 128, 256, 512, 512)
ATTENTION = (False, False, False, False, True, True, True)


def procedural(side: int) -> Pictures:
    def pictures(draws: Draws) -> tuple[Tensor, Draws]:
        return transparent_pictures(draws.batch, side, draws.generator, draws.rows), draws

    return pictures


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True, help="a checkpoint or VAE file of SD1.5 or SDXL, as ComfyUI loads it")
    add_data_argument(parser, "a folder of RGBA PNGs", side=512)
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--start-from", type=Path, help="folder with the same two files to go on from")
    parser.add_argument("--offset-dropout", type=float, default=0.3, help="share of the offset that is missing; 0.3 makes a robust decoder")
    parser.add_argument("--adversarial", type=float, default=0.01, help="weight of the PatchGAN loss; 0: none")
    add_run_arguments(parser, steps=100_000, batch=8, learning_rate=1e-5)
    args = parser.parse_args(arguments)
    check_side(parser, args.side)

    files = {name: f"vae_transparent_{name}.safetensors" for name in ("encoder", "decoder")}
    torch.manual_seed(args.seed)
    autoencoder = load_autoencoder(args.vae)
    channels = autoencoder.post_quant_conv.in_channels
    if args.start_from:
        encoder = OffsetEncoder.from_state_dict(scaled(load_weights(args.start_from / files["encoder"]), OFFSET_SCALE))
        decoder = TransparentDecoder.from_state_dict(load_weights(args.start_from / files["decoder"]))
    else:
        encoder = new_encoder((*ENCODER_WIDTHS, channels))
        decoder = new_decoder(DECODER_WIDTHS, ATTENTION, channels)
    pictures = procedural(args.side) if args.data == "procedural" else PictureFolder(Path(args.data), args.side)
    settings = TransparencySettings(adversarial=args.adversarial, offset_dropout=args.offset_dropout)
    objective = train(run_of(args), TransparencyObjective(autoencoder, encoder, decoder, pictures, settings))
    save_weights(objective.encoder_weights(), args.out / files["encoder"])
    save_weights(decoder.state_dict(), args.out / files["decoder"])


if __name__ == "__main__":
    main()
