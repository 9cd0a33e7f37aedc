"""How large the stand-ins are: narrow configurations of the real architectures, and key tables derived from them.

Names are those of the released files and of ComfyUI's models; only widths and ranks differ. Nothing here needs
ComfyUI, so that weight files can be written without it. Sources: docs/facts.md sections 1 to 4 and 6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import Any

Shapes = dict[str, tuple[int, ...]]

FAMILIES = ("SDXL", "SD1.5", "Flux")
RANK = 4

_UNET: dict[str, Any] = {
    "use_checkpoint": False,
    "image_size": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}

# What the host's model detection would say about a checkpoint of each family, with small widths.
MODELS: dict[str, dict[str, Any]] = {
    "SD1.5": _UNET
    | {
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "use_linear_in_transformer": False,
        "context_dim": 48,
        "adm_in_channels": None,
        "num_classes": None,
        "num_heads": 8,
        "num_head_channels": -1,
    },
    "SDXL": _UNET
    | {
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "use_linear_in_transformer": True,
        "context_dim": 64,
        "adm_in_channels": 2816,
        "num_classes": "sequential",
        "num_heads": -1,
        "num_head_channels": 32,
    },
    "Flux": {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "vec_in_dim": 32,
        "context_in_dim": 64,
        "hidden_size": 64,
        "mlp_ratio": 4.0,
        "num_heads": 4,
        "axes_dim": [4, 6, 6],
        "theta": 10000,
        "depth": 2,
        "depth_single_blocks": 4,
        "qkv_bias": True,
        "guidance_embed": True,
        "txt_ids_dims": [],
    },
}

# Text encoder widths: clip_l (+ clip_g) is as wide as the context above, t5xxl as Flux's, clip_l of Flux as its vector.
TEXT_WIDTHS = {
    "SD1.5": {"clip_l": 48},
    "SDXL": {"clip_l": 32, "clip_g": 32},
    "Flux": {"clip_l": 32, "t5xxl": 64},
}
TEXT_LAYERS = 4
POOLED_SDXL = 1280  # with six 256-wide size embeddings it makes the 2816 of adm_in_channels

DECODER_WIDTHS = (8, 8, 16, 24, 32, 40, 40)
ENCODER_WIDTHS = (8, 8, 16, 16, 16, 16, 32, 32)
CONTROL_WIDTHS = (8, 8, 16, 16, 32, 32, 64, 64)

_SHARED_BLOCKS = (
    *(f"input_blocks.{n}" for n in (1, 2, 4, 5, 7, 8)),
    *(f"output_blocks.{n}" for n in range(3, 12)),
    "middle_block",
)


def layer(name: str, *weight: int) -> Shapes:
    """Weight and bias of one layer."""
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def _res_block(name: str, width_in: int, width: int, embedding: int) -> Shapes:
    shapes = layer(f"{name}.in_layers.0", width_in) | layer(f"{name}.in_layers.2", width, width_in, 3, 3)
    shapes |= layer(f"{name}.emb_layers.1", width, embedding)
    shapes |= layer(f"{name}.out_layers.0", width) | layer(f"{name}.out_layers.3", width, width, 3, 3)
    return shapes if width_in == width else shapes | layer(f"{name}.skip_connection", width, width_in, 1, 1)


def _transformer(name: str, width: int, depth: int, config: dict[str, Any]) -> Shapes:
    if depth == 0:
        return {}
    kernel = () if config["use_linear_in_transformer"] else (1, 1)
    shapes = layer(f"{name}.norm", width)
    shapes |= layer(f"{name}.proj_in", width, width, *kernel) | layer(f"{name}.proj_out", width, width, *kernel)
    for block in (f"{name}.transformer_blocks.{n}" for n in range(depth)):
        for attention, context in (("attn1", width), ("attn2", config["context_dim"])):
            shapes[f"{block}.{attention}.to_q.weight"] = (width, width)
            shapes[f"{block}.{attention}.to_k.weight"] = (width, context)
            shapes[f"{block}.{attention}.to_v.weight"] = (width, context)
            shapes |= layer(f"{block}.{attention}.to_out.0", width, width)
        shapes |= layer(f"{block}.ff.net.0.proj", width * 8, width) | layer(f"{block}.ff.net.2", width, width * 4)
        for n in (1, 2, 3):
            shapes |= layer(f"{block}.norm{n}", width)
    return shapes


def unet_shapes(config: dict[str, Any]) -> Shapes:
    """Parameters of ComfyUI's UNetModel for one of the UNet configurations in `MODELS`."""
    base, embedding = config["model_channels"], config["model_channels"] * 4
    shapes = layer("time_embed.0", embedding, base) | layer("time_embed.2", embedding, embedding)
    if config["adm_in_channels"]:
        shapes |= layer("label_emb.0.0", embedding, config["adm_in_channels"])
        shapes |= layer("label_emb.0.2", embedding, embedding)
    shapes |= layer("input_blocks.0.0", base, config["in_channels"], 3, 3)

    levels = list(zip(config["channel_mult"], config["num_res_blocks"], strict=True))
    depths, depths_out = list(config["transformer_depth"]), list(config["transformer_depth_output"])
    width, skips, n = base, [base], 1
    for level, (mult, blocks) in enumerate(levels):
        for _ in range(blocks):
            shapes |= _res_block(f"input_blocks.{n}.0", width, base * mult, embedding)
            width = base * mult
            shapes |= _transformer(f"input_blocks.{n}.1", width, depths.pop(0), config)
            skips.append(width)
            n += 1
        if level + 1 < len(levels):
            shapes |= layer(f"input_blocks.{n}.0.op", width, width, 3, 3)
            skips.append(width)
            n += 1

    shapes |= _res_block("middle_block.0", width, width, embedding)
    shapes |= _transformer("middle_block.1", width, config["transformer_depth_middle"], config)
    shapes |= _res_block("middle_block.2", width, width, embedding)

    n = 0
    for level, (mult, blocks) in reversed(list(enumerate(levels))):
        for block in range(blocks + 1):
            shapes |= _res_block(f"output_blocks.{n}.0", width + skips.pop(), base * mult, embedding)
            width, depth = base * mult, depths_out.pop()
            shapes |= _transformer(f"output_blocks.{n}.1", width, depth, config)
            if level and block == blocks:
                shapes |= layer(f"output_blocks.{n}.{2 if depth else 1}.conv", width, width, 3, 3)
            n += 1
    return shapes | layer("out.0", base) | layer("out.2", config["out_channels"], base, 3, 3)


def transparent_attn_shapes(unet: Shapes) -> Shapes:
    """SDXL `layer_xl_transparent_attn`: low-rank parts of every attention projection."""
    shapes: Shapes = {}
    for key, shape in unet.items():
        if re.search(r"\.attn[12]\.to_(q|k|v|out\.0)\.weight$", key):
            shapes[f"diffusion_model.{key}::lora::0"] = (shape[0], RANK)
            shapes[f"diffusion_model.{key}::lora::1"] = (RANK, shape[1])
    return shapes


def full_delta_shapes(unet: Shapes, channels_in: int) -> Shapes:
    """SDXL `layer_xl_transparent_conv` (4 channels in) and `layer_xl_bgble2fg` (12)."""
    return _delta_shapes(unet, channels_in, r"^(time_embed|label_emb)\.|\.to_[qkv]\.weight$")


def conv_delta_shapes(unet: Shapes, channels_in: int) -> Shapes:
    """SDXL `layer_xl_fg2ble` and `layer_xl_bg2ble` (8 channels in), `layer_xl_fgble2bg` (12)."""
    return _delta_shapes(unet, channels_in, r"^(time_embed|label_emb)\.|\.1\.(norm|proj_in|proj_out|transformer_blocks)\.")


def _delta_shapes(unet: Shapes, channels_in: int, left_out: str) -> Shapes:
    shapes = {f"diffusion_model.{k}::diff::0": shape for k, shape in unet.items() if not re.search(left_out, k)}
    first = "diffusion_model.input_blocks.0.0.weight::diff::0"
    return shapes | {first: (shapes[first][0], channels_in, 3, 3)}


def attention_sharing_shapes(unet: Shapes, frames: int, control: bool, widths: Sequence[int] = CONTROL_WIDTHS) -> Shapes:
    """SD1.5 `layer_sd15_*`: what each of the 32 attention modules gains; `control` adds the image encoder."""
    shapes: Shapes = {}
    for n, (block, attention) in enumerate(product(_SHARED_BLOCKS, ("attn1", "attn2"))):
        module, name = f"{block}.1.transformer_blocks.0.{attention}", f"hookers.layers.{n}"
        width = unet[f"{module}.to_q.weight"][0]
        for projection, frame in product(("q", "k", "v", "out"), range(frames)):
            out, into = unet[f"{module}.to_{projection}{'.0' * (projection == 'out')}.weight"]
            shapes[f"{name}.to_{projection}_lora.{frame}.down.weight"] = (RANK, into)
            shapes[f"{name}.to_{projection}_lora.{frame}.up.weight"] = (out, RANK)
        for part in "iqkvo":
            shapes |= layer(f"{name}.temporal_{part}", width, width)
        shapes |= layer(f"{name}.temporal_n", width)
        for frame in range(frames if control else 0):
            shapes |= layer(f"{name}.control_convs.{frame}.0", widths[-1], widths[-1], 3, 3)
            shapes |= layer(f"{name}.control_convs.{frame}.2", width, widths[-1], 1, 1)
    if control:
        shapes |= conv_stack_shapes("kwargs_encoder.blocks_0", (3, *widths))
        for n in (1, 2, 3):
            shapes |= conv_stack_shapes(f"kwargs_encoder.blocks_{n}", (widths[-1],) * 3)
    return shapes


def conv_stack_shapes(name: str, widths: Sequence[int]) -> Shapes:
    """3x3 convolutions with an activation between them: `NAME.0`, `NAME.2`, …"""
    shapes: Shapes = {}
    for n, (width_in, width) in enumerate(pairwise(widths)):
        shapes |= layer(f"{name}.{2 * n}", width, width_in, 3, 3)
    return shapes


def offset_encoder_shapes(latent_channels: int, widths: Sequence[int] = ENCODER_WIDTHS) -> Shapes:
    """The offset encoder: nine convolutions, RGBA in."""
    return conv_stack_shapes("blocks", (4, *widths, latent_channels))


def transparent_decoder_shapes(latent_channels: int, widths: Sequence[int] = DECODER_WIDTHS) -> Shapes:
    """The transparency decoder: 538 tensors whatever the widths (multiples of 8)."""
    shapes = layer("conv_in", widths[0], 3, 3, 3) | layer("latent_conv_in", widths[2], latent_channels, 1, 1)
    shapes |= layer("conv_norm_out", widths[0]) | layer("conv_out", 4, widths[0], 3, 3)
    last, skips, width = len(widths) - 1, [widths[0]], widths[0]
    for n, wide in enumerate(widths):
        for resnet in range(2):
            shapes |= _decoder_unit(f"down_blocks.{n}", resnet, width, wide, attention=n > 3)
            width = wide
            skips.append(width)
        if n < last:
            shapes |= layer(f"down_blocks.{n}.downsamplers.0.conv", width, width, 3, 3)
            skips.append(width)
    shapes |= _decoder_unit("mid_block", 0, width, width, attention=True)
    shapes |= _decoder_unit("mid_block", 1, width, width, attention=False)
    for n, wide in enumerate(reversed(widths)):
        for resnet in range(3):
            shapes |= _decoder_unit(f"up_blocks.{n}", resnet, width + skips.pop(), wide, attention=n < 3)
            width = wide
        if n < last:
            shapes |= layer(f"up_blocks.{n}.upsamplers.0.conv", width, width, 3, 3)
    return shapes


def _decoder_unit(block: str, n: int, width_in: int, width: int, *, attention: bool) -> Shapes:
    name = f"{block}.resnets.{n}"
    shapes = layer(f"{name}.norm1", width_in) | layer(f"{name}.conv1", width, width_in, 3, 3)
    shapes |= layer(f"{name}.norm2", width) | layer(f"{name}.conv2", width, width, 3, 3)
    if width_in != width:
        shapes |= layer(f"{name}.conv_shortcut", width, width_in, 1, 1)
    if attention:
        shapes |= layer(f"{block}.attentions.{n}.group_norm", width)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            shapes |= layer(f"{block}.attentions.{n}.{part}", width, width)
    return shapes


def flux_linear_shapes(config: dict[str, Any]) -> Shapes:
    """Diffusers names of the Flux layers that a LoRA touches -> (features out, features in)."""
    wide = config["hidden_size"]
    mlp = int(wide * config["mlp_ratio"])
    shapes: Shapes = {}
    for n in range(config["depth"]):
        block = f"transformer.transformer_blocks.{n}"
        attention = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
        shapes |= {f"{block}.attn.{part}": (wide, wide) for part in attention}
        for part in ("ff", "ff_context"):
            shapes |= {f"{block}.{part}.net.0.proj": (mlp, wide), f"{block}.{part}.net.2": (wide, mlp)}
    for n in range(config["depth_single_blocks"]):
        block = f"transformer.single_transformer_blocks.{n}"
        shapes |= {f"{block}.attn.{part}": (wide, wide) for part in ("to_q", "to_k", "to_v")}
        shapes |= {f"{block}.proj_mlp": (mlp, wide), f"{block}.proj_out": (wide, wide + mlp)}
    return shapes


def kohya_layers(family: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names that community LoRAs give to the attention and the first convolution of a UNet and to the text encoders."""
    for key, shape in unet_shapes(MODELS[family]).items():
        if ".attn" in key and key.endswith(".weight") or key == "input_blocks.0.0.weight":
            name = key.removesuffix(".weight")
            yield "lora_unet_" + (_diffusers_name(name) if family == "SD1.5" else name).replace(".", "_"), shape
    encoders = ("te",) if family == "SD1.5" else ("te1", "te2")
    for encoder, width in zip(encoders, TEXT_WIDTHS[family].values(), strict=True):
        for n, part in product(range(TEXT_LAYERS), "qkv"):
            yield f"lora_{encoder}_text_model_encoder_layers_{n}_self_attn_{part}_proj", (width, width)


def _diffusers_name(name: str) -> str:
    """`input_blocks.4.1.X` -> `down_blocks.1.attentions.0.X`, and so on."""
    if name == "input_blocks.0.0":
        return "conv_in"
    side, rest = name.split(".", 1)
    if side == "middle_block":
        return f"mid_block.attentions.0.{rest.removeprefix('1.')}"
    number, _, rest = rest.split(".", 2)
    level, index = divmod(int(number) - (side == "input_blocks"), 3)
    return f"{'down' if side == 'input_blocks' else 'up'}_blocks.{level}.attentions.{index}.{rest}"
