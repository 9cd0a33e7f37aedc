"""Writes the English texts for the frontend from the nodes themselves, and says what other languages lack.

    python3 dev/comfyui.py run dev/locales.py

ComfyUI collects locales/LANGUAGE/nodeDefs.json of every pack (app/custom_node_manager.py). English comes from the nodes' schemas and
is never edited by hand. The other languages are written by people; this only brings them into the same order, takes out what is stale,
and fills in what the same English text is called elsewhere in that language (what `mask` means is said once).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from dev import comfyui

Json = dict[str, Any]

LOCALES = comfyui.ROOT / "locales"
ENGLISH = "en"
TRANSLATIONS = ("zh", "zh-TW", "ja", "ko", "fr", "es", "ru", "de", "pt-BR", "it", "tr", "he", "ar", "fa")
FILE = "nodeDefs.json"


def definitions(object_info: Mapping[str, Json]) -> Json:
    """The texts of nodes, as /object_info describes them, in the frontend's format: outputs are keyed by index.

    Of deprecated nodes no more than what they are: their ids may be another pack's, whose inputs are not ours to name.
    """
    return {node_id: _definition(info) for node_id, info in sorted(object_info.items())}


def _definition(info: Json) -> Json:
    if info.get("deprecated"):
        return {"display_name": info["display_name"], "description": info["description"]}
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


def leaves(texts: Json, prefix: str = "") -> dict[str, Any]:
    """{path of a text: the text}, in order."""
    found: Json = {}
    for key, value in texts.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def keys(texts: Json) -> set[str]:
    """The path of every text, e.g. DiaphaneBleed.inputs.image.tooltip."""
    return set(leaves(texts))


def languages() -> Iterator[tuple[str, Json]]:
    """Every language but English, with its texts: none for one of TRANSLATIONS that has no file."""
    found = {path.parent.name for path in LOCALES.glob(f"*/{FILE}")}
    for language in sorted(found.union(TRANSLATIONS) - {ENGLISH}):
        path = LOCALES / language / FILE
        yield language, json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def filled(english: Json, before: Json, texts: Json) -> Json:
    """A translation in the order of `english`, without stale texts, and with what it says elsewhere for the same English text.

    before: the English that `texts` was made from. A text whose English has changed is left out: it wants to be looked at.
    """
    made_from, now = leaves(before), leaves(texts)
    known = {made_from[key]: text for key, text in now.items() if key in made_from}

    def build(part: Json, prefix: str = "") -> Json:
        built: Json = {}
        for key, value in part.items():
            path = prefix + key
            if isinstance(value, dict):
                built[key] = build(value, f"{path}.")
            elif path in now and made_from.get(path) == value:
                built[key] = now[path]
            elif value in known:
                built[key] = known[value]
        return {key: value for key, value in built.items() if value != {}}

    return build(english)


def ask_comfyui() -> Json:
    """What a running ComfyUI says about the nodes of this pack."""
    from dev.server import ComfyServer, staged

    with staged("locales-") as base, ComfyServer(base, extra_args=["--cpu"]) as server:
        info = server.object_info()
    return {node_id: node for node_id, node in info.items() if node["python_module"] == f"custom_nodes.{comfyui.PACK}"}


def main() -> int:
    english = definitions(ask_comfyui())
    if not english:
        print("ComfyUI did not load the pack.", file=sys.stderr)
        return 1
    path = LOCALES / ENGLISH / FILE
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    _write(ENGLISH, english)
    missing = False
    for language, texts in languages():
        complete = filled(english, before, texts)
        _write(language, complete)
        for what, found in (("missing", keys(english) - keys(complete)), ("taken out", keys(texts) - keys(complete))):
            for key in sorted(found):
                print(f"{language}: {what} {key}")
        missing = missing or keys(english) != keys(complete)
    return 1 if missing else 0


def _write(language: str, texts: Json) -> None:
    path = LOCALES / language / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    changed = not path.is_file() or path.read_text(encoding="utf-8") != render(texts)
    path.write_text(render(texts), encoding="utf-8", newline="\n")
    print(f"{path.relative_to(comfyui.ROOT)}: {len(texts)} nodes, {'written' if changed else 'unchanged'}")


if __name__ == "__main__":
    sys.exit(main())
