"""The training commands on small checkpoints: what they write is what the nodes load, and real layouts are read rightly."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import save_file
from torch import Tensor

from dev.stand_ins.models import build_clip
from dev.stand_ins.vae import build_vae
from lib_layerdiffuse.comfyui.models.weight_files import FOLDER
from lib_layerdiffuse.weights.keys import parse_deltas, sharing_control_channels, sharing_frames
from training.commands import diffusion, layers, transparency
from training.data.procedural import layers as painted
from training.data.tokens import clip_tokenizer
from training.loop import load_weights, save_weights
from training.models.autoencoder import Autoencoder, AutoencoderLayout
from training.models.sdxl_text import SDXLText, from_open_clip, load_sdxl_text
from training.models.text_encoder import TextEncoder
from training.models.unet import UNet, UNetLayout
from training.stages.transparency import new_decoder, new_encoder

SIDE = 64
ENCODER, DECODER = "vae_transparent_encoder.safetensors", "vae_transparent_decoder.safetensors"
SD15 = UNetLayout(model_channels=32, multiples=(1, 1, 1, 1), depths=(1, 1, 1, 0), middle_depth=1, context_dim=64, heads=8)
SDXL = UNetLayout(
    model_channels=64, multiples=(1, 1, 1), depths=(0, 1, 2), middle_depth=2, context_dim=128, heads=None, vector_dim=64 + 1536, linear=True
)
QUICK = ["--steps", "2", "--batch", "2", "--precision", "no", "--cpu", "--side", str(SIDE), "--learning-rate", "1e-3"]


def autoencoder() -> Autoencoder:
    return Autoencoder(AutoencoderLayout(channels=32, multiples=(1, 1, 1, 1), blocks=1))


def open_clip(text_encoder: TextEncoder) -> dict[str, Tensor]:
    """A text encoder's weights under the names that SDXL checkpoints have."""
    weights = {key.removeprefix("text_model."): tensor for key, tensor in text_encoder.released_state_dict().items()}
    names = {
        "positional_embedding": "embeddings.position_embedding.weight",
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "ln_final.weight": "final_layer_norm.weight",
        "ln_final.bias": "final_layer_norm.bias",
    }
    found = {name: weights[key] for name, key in names.items()}
    pairs = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    for n in range(len(text_encoder.layers)):
        layer = f"encoder.layers.{n}."
        for kind in ("weight", "bias"):
            found |= {f"transformer.resblocks.{n}.{name}.{kind}": weights[f"{layer}{key}.{kind}"] for name, key in pairs.items()}
            parts = [weights[f"{layer}self_attn.{name}_proj.{kind}"] for name in "qkv"]
            found[f"transformer.resblocks.{n}.attn.in_proj_{kind}"] = torch.cat(parts)
    return found


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": tensor.detach().contiguous().clone() for key, tensor in weights.items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints sd15 and sdxl, an offset encoder, and folders of cut-outs and of layers."""
    import numpy as np
    from PIL import Image

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("training")
    vae = prefixed("first_stage_model.", autoencoder().state_dict())
    text = prefixed("cond_stage_model.transformer.", TextEncoder(64, 2, 1).released_state_dict())
    save_file(prefixed("model.diffusion_model.", UNet(SD15).state_dict()) | vae | text, folder / "sd15.safetensors")
    large = open_clip(TextEncoder(64, 2, 1, torch.nn.functional.gelu)) | {"text_projection": torch.randn(64, 64)}
    text = prefixed("conditioner.embedders.0.transformer.", TextEncoder(64, 2, 1).released_state_dict())
    text |= prefixed("conditioner.embedders.1.model.", large)
    save_file(prefixed("model.diffusion_model.", UNet(SDXL).state_dict()) | vae | text, folder / "sdxl.safetensors")
    save_weights(new_encoder((4, 8, 8, 8, 8, 8, 8, 8, 8, 4)).state_dict(), folder / "encoder.safetensors")

    drawn = painted(3, 80, torch.Generator().manual_seed(0))
    for kind in ("cut-outs", "layers"):
        (folder / kind).mkdir()

    def write(name: str, picture: Tensor, caption: str) -> None:
        Image.fromarray((picture.movedim(0, -1) * 255).byte().numpy()).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(caption)

    for i in range(3):
        write(f"cut-outs/{i}", drawn.foreground[i], drawn.foreground_captions[i])
        write(f"layers/{i}.foreground", drawn.foreground[i], drawn.foreground_captions[i])
        write(f"layers/{i}.background", drawn.background[i], drawn.background_captions[i])
        (folder / f"layers/{i}.blended.txt").write_text(drawn.blended_captions[i])
    assert np.asarray(Image.open(folder / "cut-outs" / "0.png")).shape == (80, 80, 4)
    return folder


def tokenizer_folder() -> str:
    import comfy.sd1_clip

    return str(Path(comfy.sd1_clip.__file__).with_name("sd1_tokenizer"))


@pytest.mark.parametrize("size", ["narrow", pytest.param("released", marks=pytest.mark.full)])
def test_transparency_networks_load_in_the_decode_node(
    files: Path, tmp_path: Path, node_classes: dict[str, Any], base_directory: Path, size: str
) -> None:
    """Ten steps of the whole thing: decoder and encoder, PatchGAN, a folder of PNGs; then the node decodes with the result."""
    arguments = ["--vae", str(files / "sdxl.safetensors"), "--data", str(files / "cut-outs"), "--out", str(tmp_path)]
    if size == "narrow":
        save_weights(new_encoder((4, 8, 8, 8, 8, 8, 8, 8, 8, 4)).state_dict(), tmp_path / "start" / ENCODER)
        narrow = new_decoder((8, 8, 8, 8, 8), (False, False, False, False, True), 4)
        save_weights(narrow.state_dict(), tmp_path / "start" / DECODER)
        arguments += ["--start-from", str(tmp_path / "start")]
    transparency.main([*arguments, "--run", str(tmp_path / "run"), *QUICK, "--steps", "10", "--batch", "1"])
    if size == "released":
        counts = {name: [tensor.numel() for tensor in load_weights(tmp_path / name).values()] for name in (DECODER, ENCODER)}
        assert len(counts[DECODER]) == 538 and sum(counts[DECODER]) == 104_104_804 and sum(counts[ENCODER]) == 1_181_764

    folder = base_directory / "models" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    trained = folder / "just_trained_decoder.safetensors"
    (tmp_path / DECODER).rename(trained)
    try:
        latent = {"samples": torch.randn(1, 4, 8, 8)}
        with torch.inference_mode():
            decoded = node_classes["DiaphaneVAEDecode"].execute(latent, build_vae("SDXL", 0), "SDXL", 1, 0, decoder_file=trained.name)
    finally:
        trained.unlink()
    rgba, rgb, mask = decoded.result
    assert rgba.shape == (1, SIDE, SIDE, 4) and rgb.shape == (1, SIDE, SIDE, 3) and mask.shape == (1, SIDE, SIDE)
    assert rgba.isfinite().all()


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_diffusion_writes_released_deltas(files: Path, tmp_path: Path, family: str, method: str) -> None:
    out = tmp_path / "deltas.safetensors"
    arguments = ["--checkpoint", str(files / f"{family}.safetensors"), "--encoder", str(files / "encoder.safetensors"), "--method", method]
    arguments += ["--data", str(files / "cut-outs"), "--tokenizer", tokenizer_folder(), "--rank", "4", "--out", str(out)]
    diffusion.main([*arguments, "--run", str(tmp_path / "run"), *QUICK])
    deltas = parse_deltas(load_weights(out))
    names = {f"diffusion_model.{key}" for key in UNet(SD15 if family == "sd15" else SDXL).state_dict()}
    assert deltas.keys() <= names
    if method == "lora":
        attention = {key for key in names if ".attn" in key and key.endswith(".weight")}
        assert deltas.keys() == attention
        assert all(delta.up is not None and delta.up.shape[1] == 4 for delta in deltas.values())
        # Where a single token is left, it attends to itself whatever the queries and keys are.
        assert all(delta.up is not None and delta.up.any() for key, delta in deltas.items() if ".to_v." in key or ".to_out." in key)
    else:
        assert len(deltas) > 0.8 * len(names)
        assert all(delta.diff is not None for delta in deltas.values())


def test_layers_write_sharing_files(files: Path, tmp_path: Path) -> None:
    def train(name: str, *frames: str) -> dict[str, Tensor]:
        out = tmp_path / f"{name}.safetensors"
        arguments = ["--checkpoint", str(files / "sd15.safetensors"), "--encoder", str(files / "encoder.safetensors"), "--out", str(out)]
        arguments += ["--data", str(files / "layers"), "--tokenizer", tokenizer_folder(), "--rank", "4", "--frames", *frames]
        layers.main([*arguments, "--run", str(tmp_path / name), *QUICK])
        return load_weights(out)

    joint = train("joint", "foreground", "background", "blended")
    assert sharing_frames(joint) == 3 and not sharing_control_channels(joint)
    given = train("given", "background", "blended", "--given", "foreground")
    assert sharing_frames(given) == 2 and sharing_control_channels(given) == 3
    assert all(given[f"hookers.layers.{n}.temporal_o.weight"].any() for n in range(32))

    beside = train("beside", "foreground", "blended", "--given", "background")
    start = str(tmp_path / "beside.safetensors")
    for name, more in (
        ("brush", ()),
        ("continued", ("--start-from", start)),
        ("again", ("--start-from", str(tmp_path / "brush.safetensors"))),
    ):
        brush = train(name, "foreground", "blended", "--given", "background", "--area", "--seed", "5", *more)
        assert sharing_frames(brush) == 2 and sharing_control_channels(brush) == 5
        assert brush.keys() - beside.keys() == {"mask_head.weight", "mask_head.bias"}
        # So few steps change little of what they start from.
        first = "hookers.layers.0.to_q_lora.0.down.weight"
        assert torch.allclose(brush[first], beside[first], atol=0.05) == (name == "continued")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--side", "100"], "multiple of 64, got 100"),
        (["--frames", "foreground", "--given", "foreground"], "cannot be among --frames"),
        (["--area", "--given", "background", "--frames", "blended"], "--area goes with --given background --frames foreground blended"),
        (["--start-from", "x"], "--start-from goes with --area"),
    ],
)
def test_wrong_arguments(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    always = [
        "--checkpoint",
        str(files / "sd15.safetensors"),
        "--encoder",
        "x",
        "--data",
        "procedural",
        "--run",
        str(tmp_path),
        "--out",
        "x",
    ]
    with pytest.raises(SystemExit):
        layers.main([*always, *arguments])
    assert message in capsys.readouterr().err


def test_unet_reads_sdxl(narrow_model: Callable[[str], ModelPatcher]) -> None:
    model = narrow_model("sdxl").model.diffusion_model
    head_dim = model.input_blocks[4][1].transformer_blocks[0].attn1.dim_head
    layout = UNetLayout.of(model.state_dict())
    assert layout.vector_dim and layout.linear and layout.depths[0] == 0 < layout.depths[1]
    unet = UNet(UNetLayout(**{**layout.__dict__, "head_dim": head_dim}))
    unet.load_state_dict(model.state_dict())
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([900, 20])
    text, vector = torch.randn(2, 77, layout.context_dim), torch.randn(2, layout.vector_dim)
    with torch.inference_mode():
        assert torch.allclose(unet(x, t, text, vector), model(x, t, context=text, y=vector), atol=1e-4)


def test_sdxl_text_equals_the_hosts() -> None:
    clip = build_clip("SDXL", 0)
    model = clip.cond_stage_model
    small = {key: tensor.float() for key, tensor in model.clip_l.transformer.state_dict().items()}
    large = {key: tensor.float() for key, tensor in model.clip_g.transformer.state_dict().items()}
    widths = [weights["text_model.final_layer_norm.weight"].shape[0] for weights in (small, large)]
    heads = model.clip_l.transformer.text_model.encoder.layers[0].self_attn.heads
    mine = SDXLText(
        TextEncoder.from_state_dict(small, head_dim=widths[0] // heads),
        TextEncoder.from_state_dict(large, torch.nn.functional.gelu, head_dim=widths[1] // heads),
        large["text_projection.weight"].T,
        side=1024,
    )
    caption = "a photo of an old wooden boat, sunset"
    with torch.inference_mode():
        expected, pooled = clip.encode_from_tokens(clip.tokenize(caption), return_pooled=True)
        text, vector = mine(clip_tokenizer(tokenizer_folder())([caption]))
    assert torch.allclose(text, expected, atol=1e-3)
    assert torch.allclose(vector[:, : pooled.shape[1]], pooled, atol=1e-3)
    assert vector.shape[1] == pooled.shape[1] + 6 * 256


def test_open_clip_names() -> None:
    text_encoder = TextEncoder(64, 2, 1)
    renamed = from_open_clip(open_clip(text_encoder))
    assert all(torch.equal(renamed[key], tensor) for key, tensor in text_encoder.released_state_dict().items())
    assert isinstance(
        load_sdxl_text(text_encoder.released_state_dict(), open_clip(text_encoder) | {"text_projection": torch.eye(64)}, 64), SDXLText
    )
