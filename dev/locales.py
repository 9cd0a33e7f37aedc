"""Writes the English texts for the frontend from the nodes themselves, and says what other languages lack.

    python3 dev/host.py run dev/locales.py

The host collects locales/LANGUAGE/nodeDefs.json of every pack (app/custom_node_manager.py). English comes from the nodes' schemas and
is never edited by hand; the other languages are written by people and only looked at here.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# So that this file also runs as a plain script.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from dev import host as hosts

Json = dict[str, Any]

LOCALES = hosts.ROOT / "locales"
ENGLISH = "en"
FILE = "nodeDefs.json"


def definitions(object_info: Mapping[str, Json]) -> Json:
    """The texts of nodes, as /object_info describes them, in the frontend's format: outputs are keyed by index."""
    return {node_id: _definition(info) for node_id, info in sorted(object_info.items())}


def _definition(info: Json) -> Json:
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {
            input_id: _text(options.get("display_name") or input_id, options.get("tooltip")) for input_id, (_, options) in inputs.items()
        },
        "outputs": {str(index): _text(name, tooltip) for index, (name, tooltip) in enumerate(outputs)},
    }


def _text(name: str, tooltip: str | None) -> Json:
    return {"name": name, "tooltip": tooltip} if tooltip else {"name": name}


def render(texts: Json) -> str:
    """The content of a locale file."""
    return json.dumps(texts, indent=2, ensure_ascii=False) + "\n"


def keys(texts: Json, prefix: str = "") -> set[str]:
    """The path of every text, e.g. DiaphaneBleed.inputs.image.tooltip."""
    found: set[str] = set()
    for key, value in texts.items():
        found |= keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def languages() -> Iterator[tuple[str, Json]]:
    """Every language but English, with its texts."""
    for path in sorted(LOCALES.glob(f"*/{FILE}")):
        if path.parent.name != ENGLISH:
            yield path.parent.name, json.loads(path.read_text(encoding="utf-8"))


def ask_host() -> Json:
    """What a running ComfyUI says about the nodes of this pack."""
    from dev.server import ComfyServer, stage, unstage

    stages = hosts.HOME / "stages"
    stages.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="locales-", dir=stages))
    try:
        stage(base, {hosts.PACK: hosts.ROOT})
        with ComfyServer(base, extra_args=["--cpu"]) as server:
            info = server.object_info()
    finally:
        unstage(base)
    return {node_id: node for node_id, node in info.items() if node["python_module"] == f"custom_nodes.{hosts.PACK}"}


def main() -> int:
    english = definitions(ask_host())
    if not english:
        print("ComfyUI did not load the pack.", file=sys.stderr)
        return 1
    path = LOCALES / ENGLISH / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    changed = not path.is_file() or path.read_text(encoding="utf-8") != render(english)
    path.write_text(render(english), encoding="utf-8", newline="\n")
    print(f"{path.relative_to(hosts.ROOT)}: {len(english)} nodes, {'written' if changed else 'unchanged'}")
    for language, texts in languages():
        for what, found in (("missing", keys(english) - keys(texts)), ("stale", keys(texts) - keys(english))):
            for key in sorted(found):
                print(f"{language}: {what} {key}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
