"""Trains the mini family from nothing: `python -m training.mini` (`make train-mini`).

Each stage writes its file to `mini/` and is skipped where that file exists; an interrupted stage goes on at its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lib_layerdiffuse.nets.offset_encoder import OFFSET_SCALE, OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
from lib_layerdiffuse.weights import mini as files

from .data.latents import SD15_SCALE, LatentSet
from .data.layer_folder import BACKGROUND, BLENDED, FOREGROUND
from .data.procedural import crop, crowded, layers, named_by_shape, transparent_pictures
from .data.tokens import procedural_tokens
from .encode import LatentEncoder, encode_layers, load_offset_encoder
from .loop import Draws, Run, load_weights, save_weights, train
from .models.autoencoder import Autoencoder, AutoencoderLayout
from .models.schedule import VELOCITY
from .models.text_encoder import TextEncoder
from .models.unet import UNet, UNetLayout
from .stages.autoencoder import AutoencoderObjective, standardise
from .stages.brush import FRAMES as BRUSH_FRAMES
from .stages.brush import BrushObjective, brush_from
from .stages.diffusion import DiffusionObjective, sharing_for
from .stages.transparency import TransparencyObjective, TransparencySettings, new_decoder, new_encoder, scaled

ROOT = Path(__file__).resolve().parents[1]
SIDE = 128
GROUP = 16  # channels that are normalised together; with 32 groups a narrow network would see no colour
HEADS = 2
TEXT_HEADS = 4
AUTOENCODER = AutoencoderLayout(channels=32, multiples=(1, 1, 2, 2), blocks=1, group=GROUP)
OFFSET_WIDTHS = (4, 16, 16, 24, 24, 48, 48, 96, 96, 4)
DECODER_WIDTHS = (16, 16, 24, 48, 48)
UNET = UNetLayout(model_channels=32, multiples=(1, 2, 2, 1), depths=(1, 1, 1, 0), middle_depth=1, context_dim=64, heads=HEADS, group=GROUP)
TEXT_LAYERS = 2
RANK = 4
CONTROL_WIDTHS = (8, 8, 12, 12, 16, 16, 16, 16)
LATENT_NOISE = 0.03  # as a fraction of the latents' std
NARROW = 0.15  # freedom of the first poses
WIDE_FROM = 0.5  # fraction of the items, and progress, from which on poses are free
CROWDED = 0.4  # fraction of the backgrounds with a sprite of their own
PLAIN = 0.4  # fraction of the base model's later captions of sprites that name only the sprite
TRIGGER = ", transparent"  # the word for transparent pictures in the base model's captions; the transparent model needs none

BRUSH_ITEMS = 1200
NAMED_BY_SHAPE = 0.5  # fraction of a brush's prompts that name only the shape

logger = logging.getLogger("diaphane.training")


@dataclass(frozen=True)
class MiniFiles:
    """The folders of one training, and the networks in its finished files."""

    files: Path
    runs: Path

    def path(self, name: str) -> Path:
        return self.files / f"{name}.safetensors"

    @property
    def intermediate(self) -> MiniFiles:
        """The files of a stage that another one continues: the decoder at the end of the encoder's training, the base model."""
        return MiniFiles(self.runs / "intermediate", self.runs)

    def autoencoder(self) -> Autoencoder:
        return Autoencoder.from_state_dict(load_weights(self.path(files.AUTOENCODER)), GROUP)

    def offset_encoder(self) -> OffsetEncoder:
        return load_offset_encoder(self.path(files.OFFSET_ENCODER))

    def latent_encoder(self, cpu: bool) -> LatentEncoder:
        return LatentEncoder(self.autoencoder(), self.offset_encoder(), SD15_SCALE, cpu)

    def unet(self) -> UNet:
        return UNet.from_state_dict(load_weights(self.path(files.MODEL)), heads=HEADS, group=GROUP)

    def text_encoder(self) -> TextEncoder:
        text_encoder = TextEncoder(UNET.context_dim, TEXT_LAYERS, TEXT_HEADS)
        text_encoder.load_released(files.with_all_words(load_weights(self.path(files.TEXT_ENCODER))))
        return text_encoder


def train_autoencoder(family: MiniFiles, run: Run) -> None:
    objective = AutoencoderObjective(Autoencoder(AUTOENCODER), SIDE, divergence=0.1)
    train(run, objective)
    standardise(objective.autoencoder, SIDE, count=512, seed=run.seed + 1)
    save_weights(objective.autoencoder.state_dict(), family.path(files.AUTOENCODER), {"group": str(GROUP)})


def train_transparency(family: MiniFiles, run: Run) -> None:
    encoder = new_encoder(OFFSET_WIDTHS)
    decoder = new_decoder(DECODER_WIDTHS, (False, False, False, False, True), AUTOENCODER.latent_channels)
    settings = TransparencySettings(adversarial_from=0.7, latent_noise=LATENT_NOISE, size=0.05)
    objective = TransparencyObjective(family.autoencoder(), encoder, decoder, _cut_outs, settings)
    train(run, objective)
    save_weights(objective.encoder_weights(), family.path(files.OFFSET_ENCODER))
    save_weights(decoder.state_dict(), family.intermediate.path(files.DECODER))


def train_decoder(family: MiniFiles, run: Run) -> None:
    """The decoder alone, for longer: with a frozen encoder a step costs a third; whole pictures give the norms their final statistics."""
    encoder = OffsetEncoder.from_state_dict(scaled(load_weights(family.path(files.OFFSET_ENCODER)), OFFSET_SCALE)).requires_grad_(False)
    decoder = TransparentDecoder.from_state_dict(load_weights(family.intermediate.path(files.DECODER)))
    settings = TransparencySettings(alpha=2.0, identity=0.0, adversarial=0.0, latent_noise=LATENT_NOISE)
    train(run, TransparencyObjective(family.autoencoder(), encoder, decoder, _whole, settings))
    save_weights(decoder.state_dict(), family.path(files.DECODER))


def _cut_outs(draws: Draws) -> tuple[Tensor, Draws]:
    """Squares of sprites for most of the training, whole ones, as many pixels, for the rest."""
    if draws.progress < 0.7:
        whole = transparent_pictures(draws.batch, SIDE, draws.generator, draws.rows)
        return crop(whole, SIDE // 2, draws.uniform(draws.batch, 2)[draws.rows]), draws
    return _whole(draws.smaller(4))


def _whole(draws: Draws) -> tuple[Tensor, Draws]:
    return transparent_pictures(draws.batch, SIDE, draws.generator, draws.rows), draws


def train_base(family: MiniFiles, run: Run) -> None:
    """The UNet and its text encoder: scenes, sprites on scenes, and, under a word of their own, transparent sprites.

    Poses are narrow at first. With any pose from the start colours and materials are learned soon and shapes are not: at 100 000
    pictures they were still at chance.
    """
    data = _latents(family, run, 20000, _base_items(narrow=NARROW))
    unet, text_encoder = UNet(UNET), TextEncoder(UNET.context_dim, TEXT_LAYERS, TEXT_HEADS)
    nn.init.normal_(text_encoder.token_embedding.weight, std=0.3)
    nn.init.normal_(text_encoder.position_embedding.weight, std=0.05)
    train(run, DiffusionObjective(unet, text_encoder, data, prediction=VELOCITY, widens_until=WIDE_FROM))
    save_base(family.intermediate, unet, text_encoder, words=data.tokens.unique())


def train_captions(family: MiniFiles, run: Run) -> None:
    """The base model for longer, with captions that end after the shape among the others: those are what layers are prompted with.

    Most tokens of a caption are its end, and what they say is learned from captions that end there.
    """
    data = _latents(family, run, 12000, _base_items(plain=PLAIN))
    unet, text_encoder = family.intermediate.unet(), family.intermediate.text_encoder()
    train(run, DiffusionObjective(unet, text_encoder, data, prediction=VELOCITY))
    save_base(family, unet, text_encoder, words=data.tokens.unique())


def save_base(family: MiniFiles, unet: UNet, text_encoder: TextEncoder, words: Tensor) -> None:
    """words: the tokens whose embeddings were trained; the others are not saved."""
    config = {"group": GROUP, "heads": HEADS, "text_heads": TEXT_HEADS}
    save_weights(unet.state_dict(), family.path(files.MODEL), {"mini": json.dumps(config)})
    weights = files.without_untrained_words(text_encoder.released_state_dict(), words)
    save_weights(weights, family.path(files.TEXT_ENCODER), integers={files.TOKEN_IDS: words})


# (encoder, count, generator, fraction of all items that exist already) -> `count` more.
Items = Callable[[LatentEncoder, int, torch.Generator, float], LatentSet]


def _latents(family: MiniFiles, run: Run, count: int, items: Items, block: int = 50) -> LatentSet:
    """Items that are encoded once and stored beside the run's checkpoints."""
    path = run.folder / "latents.safetensors"
    if not path.is_file():
        encoder = family.latent_encoder(run.cpu)
        parts = []
        for first in tqdm(range(0, count, block), f"pictures for {run.folder.name}", mininterval=5):
            generator = torch.Generator().manual_seed(run.seed * 1_000_003 + first + 500_000)
            parts.append(items(encoder, block, generator, first / count))
        LatentSet.joined(parts).save(path)
    return LatentSet.load(path)


def _base_items(narrow: float = 1.0, plain: float = 0.0) -> Items:
    """Scenes, sprites on scenes and transparent sprites.

    narrow: freedom of the first poses; later ones are free. plain: fraction of the sprites whose caption says neither scene nor trigger.
    """

    def items(encoder: LatentEncoder, count: int, generator: torch.Generator, progress: float) -> LatentSet:
        drawn = layers(count, SIDE, generator, freedom=min(1.0, narrow + (1 - narrow) * progress / WIDE_FROM))
        cut_out, scene = int(count * 0.45), int(count * 0.55)  # the rest are sprites on scenes
        latents = [
            encoder.transparent(drawn.foreground[:cut_out]),
            encoder.opaque(drawn.background[cut_out:scene]),
            encoder.opaque(drawn.blended[scene:]),
        ]
        sprites = drawn.foreground_captions
        captions = [caption + TRIGGER for caption in sprites[:cut_out]], drawn.blended_captions[scene:]
        for named, short in zip(captions, (sprites[:cut_out], sprites[scene:]), strict=True):
            some = int(len(short) * plain)
            named[:some] = short[:some]
        texts = [*captions[0], *drawn.background_captions[cut_out:scene], *captions[1]]
        return LatentSet(torch.cat(latents).unsqueeze(1), procedural_tokens(texts).unsqueeze(1))

    return items


def _brush_items(encoder: LatentEncoder, count: int, generator: torch.Generator, _: float) -> LatentSet:
    drawn = named_by_shape(crowded(layers(count, SIDE, generator), CROWDED, generator), NAMED_BY_SHAPE, generator)
    return encode_layers(encoder, drawn, BRUSH_FRAMES, BACKGROUND, procedural_tokens, area=True)


def train_brush(family: MiniFiles, run: Run) -> None:
    """A brush, from the network for layers beside a given background: half of its prompts name only the shape."""

    data = _latents(family, run, BRUSH_ITEMS, _brush_items)
    unet, text_encoder = family.unet().requires_grad_(False), family.text_encoder().requires_grad_(False)
    sharing = brush_from(load_weights(family.path(files.BACKGROUND_TO_FOREGROUND)), UNET.model_channels)
    train(run, BrushObjective(unet, text_encoder, data, prediction=VELOCITY, sharing=sharing, same_caption=0.2))
    save_weights(sharing.state_dict(), family.path(files.BRUSH))


@dataclass(frozen=True)
class Stage:
    train: Callable[[MiniFiles, Run], None]
    settings: dict[str, Any]  # of its run
    files: tuple[str, ...]  # what it writes
    continued: bool = False  # another stage continues its files, under the same names

    def is_complete(self, family: MiniFiles) -> bool:
        """Whether its files are there, or those of the stage that continues them."""
        places = (family, family.intermediate) if self.continued else (family,)
        return any(all(place.path(name).is_file() for name in self.files) for place in places)


def _sharing(name: str, frames: tuple[str, ...], steps: int, batch: int, given: str | None = None) -> Stage:
    """Trains an attention sharing file around the frozen base model."""

    def train_sharing(family: MiniFiles, run: Run) -> None:
        def items(encoder: LatentEncoder, count: int, generator: torch.Generator, _: float) -> LatentSet:
            drawn = layers(count, SIDE, generator)
            if given == BACKGROUND:
                drawn = crowded(drawn, CROWDED, generator)
            return encode_layers(encoder, drawn, frames, given, procedural_tokens)

        data = _latents(family, run, 8000 // len(frames), items)
        unet, text_encoder = family.unet().requires_grad_(False), family.text_encoder().requires_grad_(False)
        sharing = sharing_for(unet, len(frames), RANK, CONTROL_WIDTHS if given else ())
        objective = DiffusionObjective(unet, text_encoder, data, prediction=VELOCITY, sharing=sharing, same_caption=0.2)
        train(run, objective)
        save_weights(sharing.state_dict(), family.path(name))

    return Stage(train_sharing, {"steps": steps, "batch": batch, "learning_rate": 1.5e-3, "average": 0.995}, (name,))


# In the order of training.
STAGES = {
    "autoencoder": Stage(train_autoencoder, {"steps": 11000, "batch": 8, "learning_rate": 1.5e-3, "average": 0.998}, (files.AUTOENCODER,)),
    "transparency": Stage(
        train_transparency, {"steps": 5000, "batch": 8, "learning_rate": 1.5e-3, "average": 0.998}, (files.OFFSET_ENCODER,)
    ),
    "decoder": Stage(train_decoder, {"steps": 14000, "batch": 4, "learning_rate": 1.5e-3, "average": 0.998}, (files.DECODER,)),
    "base": Stage(
        train_base,
        {"steps": 5000, "batch": 64, "learning_rate": 1.8e-3, "average": 0.998},
        (files.TEXT_ENCODER, files.MODEL),
        continued=True,
    ),
    "captions": Stage(
        train_captions,
        {"steps": 1800, "batch": 64, "learning_rate": 1e-3, "average": 0.998, "seed": 1},
        (files.TEXT_ENCODER, files.MODEL),
    ),
    "transparent": _sharing(files.TRANSPARENT, (FOREGROUND,), 2000, 32),
    "joint": _sharing(files.JOINT, (FOREGROUND, BACKGROUND, BLENDED), 3600, 12),
    "fg2bg": _sharing(files.FOREGROUND_TO_BACKGROUND, (BACKGROUND, BLENDED), 1200, 16, given=FOREGROUND),
    "bg2fg": _sharing(files.BACKGROUND_TO_FOREGROUND, (FOREGROUND, BLENDED), 3000, 16, given=BACKGROUND),
    "brush": Stage(train_brush, {"steps": 1100, "batch": 12, "learning_rate": 1.5e-3, "average": 0.99, "save_every": 100}, (files.BRUSH,)),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.mini", description=__doc__)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "mini", help="checkpoints and TensorBoard logs")
    parser.add_argument("--out", type=Path, default=ROOT / "mini", help="where the finished files go")
    parser.add_argument("--only", choices=STAGES, nargs="+", default=list(STAGES), help="these stages alone")
    parser.add_argument("--precision", choices=("bf16", "no"), default="bf16", help="no: float32, for processors that only emulate bf16")
    parser.add_argument("--cpu", action="store_true", help="even if there is a GPU")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    family = MiniFiles(args.out, args.runs)
    for name in args.only:
        stage = STAGES[name]
        if stage.is_complete(family):
            logger.info("%s is complete: %s", name, ", ".join(stage.files))
            continue
        run = Run(folder=args.runs / name, precision=args.precision, cpu=args.cpu, **stage.settings)
        torch.manual_seed(run.seed)
        stage.train(family, run)
        shutil.rmtree(run.folder / "checkpoint", ignore_errors=True)
        (run.folder / "latents.safetensors").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
