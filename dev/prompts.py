"""Prompts in API format: written as Python, which is what live tests queue, and other values for their widgets."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

PROMPT = "a glass bottle"


def node(class_type: str, **inputs: Any) -> Json:
    return {"class_type": class_type, "inputs": inputs}


def set_widgets(prompt: Json, nodes: str | None = None, **values: Any) -> None:
    """Sets widgets of the nodes with this id, class or title (None: of all nodes) that have them. What comes through a link stays."""
    for node_id, entry in prompt.items():
        if nodes is None or nodes in (node_id, entry["class_type"], entry.get("_meta", {}).get("title")):
            inputs = entry["inputs"]
            inputs |= {key: value for key, value in values.items() if key in inputs and not isinstance(inputs[key], list)}


def loader(family: str) -> Json:
    """A stand-in checkpoint: MODEL, CLIP, VAE."""
    return node("StandInCheckpoint", family=family, seed=0)


def sampler(model: list[Any], text: list[Any], latent: list[Any], seed: int = 1, steps: int = 1, denoise: float = 1.0) -> Json:
    return node(
        "KSampler",
        model=model,
        positive=text,
        negative=text,
        latent_image=latent,
        seed=seed,
        steps=steps,
        cfg=5.0,
        sampler_name="euler",
        scheduler="normal",
        denoise=denoise,
    )


def transparent(model: list[Any], **inputs: Any) -> Json:
    return node("DiaphaneTransparent", **{"model": model, "method": "auto", "weight": 1.0, "start": 0.0, "end": 1.0, **inputs})


def decode(samples: list[Any], vae: list[Any], **inputs: Any) -> Json:
    return node("DiaphaneVAEDecode", **{"samples": samples, "vae": vae, "family": "auto", "passes": 1, "tile_size": 0, **inputs})


def encode(image: list[Any], vae: list[Any], **inputs: Any) -> Json:
    return node("DiaphaneVAEEncode", **{"image": image, "vae": vae, "family": "auto", "offset_scale": 300.0, **inputs})


def transparent_vae(vae: list[Any], **inputs: Any) -> Json:
    return node("DiaphaneVAE", **{"vae": vae, "family": "auto", "passes": 1, "offset_scale": 300.0, **inputs})


def save(images: list[Any], prefix: str) -> Json:
    return node("SaveImage", images=images, filename_prefix=prefix)


def text_to_image(family: str = "SDXL", seed: int = 1, side: int = 64) -> Json:
    """A whole right prompt: nodes "loader", "patch", "text", "empty", "sample", "decode", "save"."""
    return {
        "loader": loader(family),
        "patch": transparent(["loader", 0]),
        "text": node("CLIPTextEncode", clip=["loader", 1], text=PROMPT),
        "empty": node("EmptyLatentImage", width=side, height=side, batch_size=1),
        "sample": sampler(["patch", 0], ["text", 0], ["empty", 0], seed),
        "decode": decode(["sample", 0], ["loader", 2]),
        "save": save(["decode", 0], "right"),
    }
