"""Starts ComfyUI with this pack and the stand-in models, to click in. `make serve`, PORT=8188; Ctrl-C ends it.

Models, inputs and outputs are those of the ComfyUI tree itself. Further arguments go to ComfyUI (`make serve ARGS=--lowvram`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from dev import comfyui
from dev.server import PACKS, STAND_INS
from dev.steps import link_directory, remove_link


def main() -> int:
    installation = comfyui.locate()
    port = os.environ.get("PORT") or "8188"
    command = [str(installation.python), str(installation.tree / "main.py"), "--listen", "127.0.0.1", "--port", port]
    command += [
        "--base-directory",
        str(installation.tree),
        "--extra-model-paths-config",
        str(extra_paths(installation)),
        "--disable-auto-launch",
    ]
    if not installation.has_gpu():
        command.append("--cpu")
    print(f"ComfyUI {installation.version} with {comfyui.PACK}: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    # Whoever ends this script ends ComfyUI with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = subprocess.Popen([*command, *sys.argv[1:]], cwd=installation.tree, env=installation.server_environment())
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        return process.wait()


def extra_paths(installation: comfyui.ComfyUI) -> Path:
    """Writes the configuration that adds our packs to the tree's own, without touching the tree; returns its path."""
    folder = comfyui.HOME / "serve"
    packs = STAND_INS
    if not any(path.resolve() == comfyui.ROOT for path in (installation.tree / "custom_nodes").iterdir()):
        packs = {**packs, **PACKS}
    links = folder / "custom_nodes"
    links.mkdir(parents=True, exist_ok=True)
    for link in links.iterdir():
        remove_link(link)
    for name, path in packs.items():
        link_directory(path, links / name)
    config = folder / "extra_model_paths.yaml"
    # JSON is YAML, and quotes any path correctly.
    config.write_text(json.dumps({"diaphane": {"custom_nodes": str(links)}}), encoding="utf-8")
    return config


if __name__ == "__main__":
    sys.exit(main())
