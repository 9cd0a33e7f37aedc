"""Make a dataset of layers from transparent pictures, with a running ComfyUI (paper section 3.4).

    python -m training.commands.dataset --server http://127.0.0.1:8188 --checkpoint v1-5-pruned.safetensors --data cut-outs/ --out layers/

For every NAME.png (RGBA) the server first paints a scene around the picture, then paints the picture out of that scene. In --out:
NAME.foreground.png, NAME.background.png, and the captions that were used. What is there already is not made again.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image
from tqdm import tqdm

from ..data.folder import PictureFolder
from ..data.layer_folder import BACKGROUND, BLENDED, FOREGROUND, layer_file

ERODE = 8  # pixels: what the server may repaint reaches so far into the picture, and the seam with it
Prompt = dict[str, dict[str, Any]]


class Server:
    """A ComfyUI server: upload pictures, run prompts, download the results."""

    def __init__(self, url: str, patience: float = 600.0):
        self.url = url.rstrip("/")
        self.patience = patience

    def upload(self, picture: Image.Image, name: str) -> str:
        """The picture's name for Load Image."""
        data = io.BytesIO()
        picture.save(data, "PNG")
        form = {"image": (name, data.getvalue(), "image/png")}
        answer = self._checked(requests.post(f"{self.url}/upload/image", files=form, data={"overwrite": "true"}, timeout=60))
        return f"{answer['subfolder']}/{answer['name']}".lstrip("/")

    def run(self, prompt: Prompt, output: str) -> Image.Image:
        """The first picture of node `output`. Raises RuntimeError if the server refuses or fails."""
        ident = self._checked(requests.post(f"{self.url}/prompt", json={"prompt": prompt}, timeout=60))["prompt_id"]
        until = time.monotonic() + self.patience
        while time.monotonic() < until:
            history = self._checked(requests.get(f"{self.url}/history/{ident}", timeout=60)).get(ident)
            if history is None:
                time.sleep(0.5)
                continue
            if history["status"]["status_str"] != "success":
                raise RuntimeError(f"ComfyUI could not run the prompt: {history['status']['messages'][-1]}")
            found = history["outputs"][output]["images"][0]
            answer = requests.get(f"{self.url}/view", params=found, timeout=60)
            answer.raise_for_status()
            return Image.open(io.BytesIO(answer.content)).convert("RGB")
        raise RuntimeError(f"ComfyUI did not finish within {self.patience:.0f} s.")

    @staticmethod
    def _checked(answer: requests.Response) -> dict[str, Any]:
        if not answer.ok:
            raise RuntimeError(f"ComfyUI refused: {answer.status_code} {answer.text[:500]}")
        return answer.json()


def inpainting_prompt(args: argparse.Namespace, picture: str, text: str, *, around: bool, seed: int) -> Prompt:
    """Repaint the transparent part of a picture (around=True), or the opaque one."""
    grow = {"inputs": {"mask": ["picture", 1], "expand": ERODE, "tapered_corners": True}, "class_type": "GrowMask"}
    if not around:  # the mask says what is transparent: turned round, it is the picture, and has to cover its soft edge
        grow["inputs"]["mask"] = ["inverse", 0]
    return {
        "model": {"class_type": args.loader, "inputs": args.loader_inputs or {"ckpt_name": args.checkpoint}},
        "picture": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "inverse": {"class_type": "InvertMask", "inputs": {"mask": ["picture", 1]}},
        "mask": grow,
        "latent": {"class_type": "VAEEncode", "inputs": {"pixels": ["picture", 0], "vae": ["model", 2]}},
        "masked": {"class_type": "SetLatentNoiseMask", "inputs": {"samples": ["latent", 0], "mask": ["mask", 0]}},
        "positive": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["model", 1]}},
        "negative": {"class_type": "CLIPTextEncode", "inputs": {"text": args.negative, "clip": ["model", 1]}},
        "sampled": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["model", 0],
                "positive": ["positive", 0],
                "negative": ["negative", 0],
                "latent_image": ["masked", 0],
                "seed": seed,
                "steps": args.steps,
                "cfg": args.cfg,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "decoded": {"class_type": "VAEDecode", "inputs": {"samples": ["sampled", 0], "vae": ["model", 2]}},
        "saved": {"class_type": "SaveImage", "inputs": {"images": ["decoded", 0], "filename_prefix": "diaphane/dataset"}},
    }


def make_background(
    server: Server, args: argparse.Namespace, cut_out: Image.Image, name: str, captions: dict[str, str], seed: int
) -> Image.Image:
    """The background of one cut-out."""
    alpha = np.asarray(cut_out.getchannel("A"), dtype=np.float32)[..., None] / 255
    colour = np.asarray(cut_out.convert("RGB"), dtype=np.float32)

    def with_alpha(rgb: np.ndarray) -> Image.Image:
        """Opaque colour whose alpha channel tells Load Image where the cut-out is."""
        return Image.fromarray(np.concatenate([rgb, alpha * 255], axis=-1).round().astype(np.uint8))

    on_grey = colour * alpha + 127.5 * (1 - alpha)
    around = inpainting_prompt(args, server.upload(with_alpha(on_grey), f"{name}.png"), captions[BLENDED], around=True, seed=seed)
    scene = np.asarray(server.run(around, "saved"), dtype=np.float32)
    blended = colour * alpha + scene * (1 - alpha)
    without = inpainting_prompt(args, server.upload(with_alpha(blended), f"{name}.png"), captions[BACKGROUND], around=False, seed=seed + 1)
    return server.run(without, "saved")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="address of a running ComfyUI")
    parser.add_argument("--checkpoint", default="", help="as Load Checkpoint lists it; an inpainting checkpoint is best")
    parser.add_argument("--loader", default="CheckpointLoaderSimple", help="another node with the outputs MODEL, CLIP and VAE")
    parser.add_argument("--loader-inputs", type=json.loads, default={}, help="its inputs, as JSON; the checkpoint's name otherwise")
    parser.add_argument("--data", type=Path, required=True, help="a folder of RGBA PNGs with .txt captions")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", type=int, default=512, help="of the squares that are made, in pixels; a multiple of 64")
    parser.add_argument("--scene", default="{caption}, in its natural surroundings", help="prompt of the scene")
    parser.add_argument("--background", default="empty scene, background only", help="prompt of the background")
    parser.add_argument("--negative", default="text, watermark, frame")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cfg", type=float, default=7.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)

    folder, server = PictureFolder(args.data, args.side), Server(args.server)
    args.out.mkdir(parents=True, exist_ok=True)
    for index, path in enumerate(tqdm(folder.paths, "layers")):
        name = args.out / path.stem
        if layer_file(name, FOREGROUND, "png").is_file():
            continue
        caption = folder.caption(index)
        captions = {FOREGROUND: caption, BACKGROUND: args.background, BLENDED: args.scene.format(caption=caption)}
        pixels = (folder.square(index).movedim(0, -1) * 255).round().byte().numpy()
        cut_out = Image.fromarray(pixels)
        make_background(server, args, cut_out, path.stem, captions, args.seed + 2 * index).save(layer_file(name, BACKGROUND, "png"))
        for layer, text in captions.items():
            layer_file(name, layer, "txt").write_text(text + "\n", encoding="utf-8")
        cut_out.save(layer_file(name, FOREGROUND, "png"))  # last: its presence says that the set is whole


if __name__ == "__main__":
    main()
