"""The whole chain at true widths: checkpoints and patches as large as the real ones, with made-up weights."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dev import comfyui
from dev.server import ComfyServer, staged

pytestmark = [pytest.mark.live, pytest.mark.full, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("family", ["SD1.5", "SDXL"])
def test_transparent_picture_and_back(family: str) -> None:
    host = comfyui.locate()
    with staged("full-size-") as base:
        subprocess.run(
            [str(host.python), str(comfyui.ROOT / "dev" / "full_size.py"), str(base / "models"), family], check=True, env=host.environment()
        )
        # Half the memory of fp32, which a CPU would take by itself.
        with ComfyServer(base, extra_args=["--bf16-unet", "--bf16-text-enc"]) as server:
            images = server.outputs(server.queue(prompt(family), timeout=1500))
        check(images)


def prompt(family: str) -> dict[str, Any]:
    """Checkpoint -> transparent picture -> encode -> second pass -> picture."""

    def sampler(latent: str, denoise: float) -> dict[str, Any]:
        return {
            "class_type": "KSampler",
            "inputs": {
                "model": ["patch", 0],
                "positive": ["text", 0],
                "negative": ["text", 0],
                "latent_image": [latent, 0],
                "seed": 12345,
                "steps": 2,
                "cfg": 5.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": denoise,
            },
        }

    def decode(samples: str) -> dict[str, Any]:
        inputs = {"samples": [samples, 0], "vae": ["checkpoint", 2], "family": family, "passes": 8, "tile_size": 0}
        return {"class_type": "DiaphaneVAEDecode", "inputs": inputs}

    def save(images: str, prefix: str) -> dict[str, Any]:
        return {"class_type": "SaveImage", "inputs": {"images": [images, 0], "filename_prefix": prefix}}

    return {
        "checkpoint": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": f"full_size_{family}.safetensors"}},
        "patch": {
            "class_type": "DiaphaneTransparent",
            "inputs": {"model": ["checkpoint", 0], "method": "auto", "weight": 1.0, "start": 0.0, "end": 1.0},
        },
        "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["checkpoint", 1], "text": "an apple, high quality"}},
        "empty": {"class_type": "EmptyLatentImage", "inputs": {"width": 256, "height": 256, "batch_size": 1}},
        "first": sampler("empty", 1.0),
        "decoded": decode("first"),
        "saved": save("decoded", "first"),
        "encoded": {
            "class_type": "DiaphaneVAEEncode",
            "inputs": {"image": ["decoded", 0], "vae": ["checkpoint", 2], "family": family, "offset_scale": 300.0},
        },
        "second": sampler("encoded", 0.5),
        "decoded again": decode("second"),
        "saved again": save("decoded again", "second"),
    }


def check(images: list[Path]) -> None:
    assert [path.name.partition("_")[0] for path in images] == ["first", "second"]
    for path in images:
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGBA", (256, 256))
            least, most = image.getchannel("A").getextrema()
            assert most > least, f"{path.name} has the same alpha everywhere"  # pyright: ignore[reportOperatorIssue]
