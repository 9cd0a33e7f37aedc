"""Sizes, batches and alpha survive encoding and decoding, through the pack's own nodes and through the host's with a Transparent VAE."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from PIL import Image

from dev import bundled
from dev.prompts import Json, decode, encode, loader, node, sampler, save, text_to_image, transparent_vae
from dev.server import ComfyServer

pytestmark = pytest.mark.live

TILES: Json = {"tile_size": 256, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}


def cut_out(server: ComfyServer, width: int, height: int) -> Json:
    """A LoadImage node for a cut-out of that size: IMAGE and MASK."""
    name = f"cut_out_{width}x{height}.png"
    bundled.draw_cut_out(server.base_directory / "input" / name, width, height)
    return node("LoadImage", image=name)


def shapes(server: ComfyServer, prompt: Json) -> dict[str, list[tuple[str, tuple[int, int]]]]:
    """Runs a prompt; mode and size of each picture that it saves, by the file's prefix."""
    found: dict[str, list[tuple[str, tuple[int, int]]]] = {}
    for path in server.outputs(server.queue(prompt)):
        with Image.open(path) as image:
            found.setdefault(path.name.rpartition("_0")[0], []).append((image.mode, image.size))
    return found


def rgba(size: Sequence[int], count: int = 1) -> list[tuple[str, tuple[int, int]]]:
    return [("RGBA", (size[0], size[1]))] * count


@pytest.mark.parametrize(("size", "count"), [((512, 512), 1), ((1000, 700), 1), ((64, 1088), 3)], ids=str)
def test_encode_and_decode_give_the_same_size_back(server: ComfyServer, size: tuple[int, int], count: int) -> None:
    prompt = {
        "loader": loader("SDXL"),
        "cut-out": cut_out(server, *size),
        "batch": node("RepeatImageBatch", image=["cut-out", 0], amount=count),
        "encode": encode(["batch", 0], ["loader", 2], mask=["cut-out", 1]),
        "decode": decode(["encode", 0], ["loader", 2]),
        "save": save(["decode", 0], "rgba"),
    }
    assert shapes(server, prompt) == {"rgba": rgba(size, count)}


@pytest.mark.parametrize("family", ["SDXL", "SD1.5", "Flux"])
def test_all_outputs_of_decode_have_the_size_of_the_picture(server: ComfyServer, family: str) -> None:
    size = (150, 90)
    prompt = {
        "loader": loader(family),
        "cut-out": cut_out(server, *size),
        "batch": node("RepeatImageBatch", image=["cut-out", 0], amount=2),
        "encode": encode(["batch", 0], ["loader", 2], mask=["cut-out", 1], family=family),
        "decode": decode(["encode", 0], ["loader", 2], family=family, passes=8),
        "mask": node("MaskToImage", mask=["decode", 2]),
        "save": save(["decode", 0], "rgba"),
        "save rgb": save(["decode", 1], "rgb"),
        "save mask": save(["mask", 0], "mask"),
    }
    opaque = [("RGB", size)] * 2
    assert shapes(server, prompt) == {"rgba": rgba(size, 2), "rgb": opaque, "mask": opaque}


def test_mask_is_the_opposite_of_alpha(server: ComfyServer) -> None:
    prompt = text_to_image(seed=7)
    prompt["mask"] = node("MaskToImage", mask=["decode", 2])
    prompt["save mask"] = save(["mask", 0], "opposite")
    paths = {path.name.rpartition("_0")[0]: path for path in server.outputs(server.queue(prompt))}
    with Image.open(paths["right"]) as picture, Image.open(paths["opposite"]) as mask:
        alpha, transparency = picture.getchannel("A").tobytes(), mask.getchannel("R").tobytes()
    assert max(abs(255 - a - t) for a, t in zip(alpha, transparency, strict=True)) <= 1


@pytest.mark.parametrize("family", ["SDXL", "Flux"])
def test_transparent_vae_works_in_the_nodes_of_the_host(server: ComfyServer, family: str) -> None:
    size = (320, 192)
    prompt = {
        "loader": loader(family),
        "vae": transparent_vae(["loader", 2]),
        "text": node("CLIPTextEncode", clip=["loader", 1], text="a glass bottle"),
        "cut-out": cut_out(server, *size),
        "picture": node("JoinImageWithAlpha", image=["cut-out", 0], alpha=["cut-out", 1]),
        "encode": node("VAEEncode", pixels=["picture", 0], vae=["vae", 0]),
        "encode opaque": node("VAEEncode", pixels=["cut-out", 0], vae=["vae", 0]),
        "encode tiled": node("VAEEncodeTiled", pixels=["picture", 0], vae=["vae", 0], **TILES),
        "encode inpaint": node("VAEEncodeForInpaint", pixels=["picture", 0], vae=["vae", 0], mask=["cut-out", 1], grow_mask_by=6),
        "upscale": node("LatentUpscale", samples=["encode", 0], upscale_method="bilinear", width=384, height=256, crop="disabled"),
        "second pass": sampler(["loader", 0], ["text", 0], ["upscale", 0], steps=2, denoise=0.5),
        "inpaint": sampler(["loader", 0], ["text", 0], ["encode inpaint", 0]),
    }
    latents = {"plain": "encode", "opaque": "encode opaque", "tiled": "encode tiled", "second": "second pass", "inpaint": "inpaint"}
    for name, latent in latents.items():
        prompt[f"decode {name}"] = node("VAEDecode", samples=[latent, 0], vae=["vae", 0])
        prompt[f"save {name}"] = save([f"decode {name}", 0], f"vae_{name}")
    prompt["in tiles"] = node("VAEDecodeTiled", samples=["encode", 0], vae=["vae", 0], **TILES)
    prompt["save in tiles"] = save(["in tiles", 0], "vae_in_tiles")

    expected = {f"vae_{name}": rgba((384, 256) if name == "second" else size) for name in (*latents, "in_tiles")}
    assert shapes(server, prompt) == expected


def test_transparent_vae_is_an_ordinary_vae_to_the_packs_own_nodes(server: ComfyServer) -> None:
    prompt = text_to_image(seed=8)
    prompt["vae"] = transparent_vae(["loader", 2])
    prompt["decode"]["inputs"]["vae"] = ["vae", 0]
    assert shapes(server, prompt) == {"right": rgba((64, 64))}


def test_animation_length_batch_decodes(server: ComfyServer) -> None:
    prompt = text_to_image(seed=9)
    prompt["empty"]["inputs"]["batch_size"] = 16
    assert shapes(server, prompt) == {"right": rgba((64, 64), 16)}
