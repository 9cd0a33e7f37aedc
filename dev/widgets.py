"""Which widgets the frontend gives a node, and which saved value belongs to which."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

WIDGETS = {"BOOLEAN", "COLOR", "COLORS", "COMBO", "CURVE", "FLOAT", "INT", "MARKDOWN", "RANGE", "STRING", "TEXTAREA"}
WIDGETS |= {"BOUNDING_BOX", "BOUNDING_BOXES", "CHART", "COMFY_DYNAMICCOMBO_V3", "GALLERIA", "IMAGECOMPARE", "PAINTER"}
UPLOADS = {"image_upload", "video_upload", "animated_image_upload"}
DEFAULTS: Json = {"BOOLEAN": False, "FLOAT": 0, "INT": 0, "STRING": "", "IMAGECOMPARE": ["", ""]}


def widget_values(node: Json, info: Json) -> Json:
    """The values of a node's widgets by input name. What the workflow does not give has the default that object_info states."""
    saved = node.get("widgets_values")
    if isinstance(saved, dict):
        return {name: saved.get(name, _default(spec)) for name, spec in _dict_widgets(info, saved)}
    remaining = _without_forced(list(saved or []), info)
    values: Json = {}
    for name, spec in input_specs(info):
        _take(name, spec, remaining, values)
    return values


def input_specs(info: Json) -> list[tuple[str, list[Any]]]:
    """The inputs of a node type in the order in which the frontend makes their widgets: required, optional, then unordered ones."""
    specs: list[tuple[str, list[Any]]] = []
    for group in ("required", "optional"):
        known = info.get("input", {}).get(group) or {}
        order = [name for name in (info.get("input_order") or {}).get(group, []) if name in known]
        specs += [(name, known[name]) for name in [*order, *(name for name in known if name not in order)]]
    return specs


def _take(name: str, spec: list[Any], remaining: list[Any], values: Json) -> None:
    """Moves what belongs to one input from the saved values to `values`."""
    if not is_widget(spec):
        return
    kind = kind_of(spec)
    value = remaining.pop(0) if remaining else _default(spec)
    if value is None and kind == "COMBO":
        value = _default(spec)
    values[name] = value
    if kind == "COMFY_DYNAMICCOMBO_V3":
        chosen = next((option["inputs"] for option in _options(spec)["options"] if option["key"] == value), {})
        for inner_name, inner_spec in input_specs({"input": chosen}):
            _take(f"{name}.{inner_name}", inner_spec, remaining, values)
    del remaining[: _companions(name, spec)]


def _companions(name: str, spec: list[Any]) -> int:
    """How many saved values belong to helper widgets after this one: "randomize" and its like, and a combo's filter."""
    kind, options = kind_of(spec), _options(spec)
    control = options.get("control_after_generate")
    if kind == "INT":
        return int(bool(control if control is not None else name in ("seed", "noise_seed")))
    if kind == "FLOAT":
        return int(bool(control))
    return 2 if kind == "COMBO" and control else 0


def is_widget(spec: list[Any]) -> bool:
    """Whether the frontend shows an input as a widget (it may be linked all the same)."""
    options = _options(spec)
    return not options.get("forceInput") and (options.get("widgetType") or kind_of(spec)) in WIDGETS


def kind_of(spec: list[Any]) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def _options(spec: list[Any]) -> Json:
    return spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}


def _default(spec: list[Any]) -> Any:
    kind, options = kind_of(spec), _options(spec)
    if "default" in options:
        return options["default"]
    choices = spec[0] if isinstance(spec[0], list) else options.get("options", [])
    if kind == "COMFY_DYNAMICCOMBO_V3":
        choices = [option["key"] for option in choices]
    return choices[0] if choices else DEFAULTS.get(kind)


def _dict_widgets(info: Json, saved: Json) -> Iterator[tuple[str, list[Any]]]:
    for name, spec in input_specs(info):
        if is_widget(spec):
            yield name, spec
            if kind_of(spec) == "COMFY_DYNAMICCOMBO_V3":
                key = saved.get(name, _default(spec))
                chosen = next((option["inputs"] for option in _options(spec)["options"] if option["key"] == key), {})
                yield from (
                    (f"{name}.{inner}", inner_spec) for inner, inner_spec in input_specs({"input": chosen}) if is_widget(inner_spec)
                )


def _without_forced(values: list[Any], info: Json) -> list[Any]:
    """Drops the values that old frontends saved for forceInput inputs, recognised, as the frontend does, by the count alone."""
    forced: list[bool] = []
    for _, spec in input_specs(info):
        options = _options(spec)
        if options.get("forceInput") or is_widget(spec):
            forced += [bool(options.get("forceInput")), *([False] if options.get("control_after_generate") else [])]
    if any(UPLOADS & _options(spec).keys() for _, spec in input_specs(info)):
        forced.append(False)
    return [value for value, drop in zip(values, forced, strict=True) if not drop] if len(values) == len(forced) else values


def chosen(value: Any, spec: list[Any] | None) -> Any:
    return _first_choice(value) if spec and _options(spec).get("dynamicPrompts") and isinstance(value, str) else value


def _first_choice(text: str) -> str:
    """A prompt without its comments and with the first alternative of each {one|two}; a backslash keeps {, } and | as they are."""
    text = re.sub(r"/\*[\s\S]*?\*/|//.*", "", text)
    result, position = "", 0
    for found in re.finditer(r"\\.|\{", text, re.DOTALL):
        if found.group() != "{" or found.start() < position:
            continue
        first, end = _alternative(text, found.end())
        result, position = result + text[position : found.start()] + _first_choice(first), end
    return re.sub(r"\\([{}|])", r"\1", result + text[position:])


def _alternative(text: str, start: int) -> tuple[str, int]:
    """The first alternative of the choice that opens before `start`, and where the choice ends (at the end of the text if never closed)."""
    depth, first_end = 0, None
    for found in re.finditer(r"\\.|[{}|]", text[start:], re.DOTALL):
        here = start + found.start()
        if found.group() == "{":
            depth += 1
        elif found.group() == "}":
            if depth == 0:
                return text[start : here if first_end is None else first_end], here + 1
            depth -= 1
        elif found.group() == "|" and depth == 0 and first_end is None:
            first_end = here
    return text[start:first_end], len(text)
