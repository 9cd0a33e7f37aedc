"""Values that come over a wire: ComfyUI checks what stands in widgets, but not what another node hands over."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.documents.comfyui_layers import from_comfyui
from ..lib_layerdiffuse.errors import DiaphaneError
from . import inputs

Node = TypeVar("Node", bound=type[io.ComfyNode])

# {type: (its name in messages, whether a value is one)}
TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "IMAGE": ("a picture", lambda value: isinstance(value, Tensor)),
    "MASK": ("a mask", lambda value: isinstance(value, Tensor)),
    "LATENT": ("a latent with samples", lambda value: isinstance(value, Mapping) and hasattr(value.get("samples"), "is_nested")),
    "COLOR": ("a colour as #rrggbb", lambda value: isinstance(value, str)),
    "LAYERS": ("layers as Add Layer gives them", lambda value: isinstance(value, Mapping)),
    "CONDITIONING": ("a prompt that is not empty", lambda value: isinstance(value, list) and len(value) > 0),
}


def checked(node: Node) -> Node:
    """The node class itself, whose `execute` now raises DiaphaneError for values that its schema does not allow."""
    changed: Any = node
    execute = changed.execute.__func__
    signature = inspect.signature(execute)
    schema_of = cache(changed.define_schema)  # building one looks for files

    def execute_checked(cls: type[io.ComfyNode], *args: Any, **kwargs: Any) -> io.NodeOutput:
        schema = schema_of()
        values = signature.bind(cls, *args, **kwargs).arguments
        for item in schema.inputs:
            if item.id in values:
                what, given = f"{schema.display_name}: {item.id}", values[item.id]
                if schema.is_input_list:
                    values[item.id] = [_allowed(what, item, value) for value in given or [None]]
                else:
                    values[item.id] = _allowed(what, item, given)
        return execute(**values)

    changed.execute = classmethod(execute_checked)
    return node


def _allowed(what: str, item: Any, value: Any) -> Any:
    """The value, as the node expects it."""
    kind = item.get_io_type()
    if value is None:
        if item.optional or isinstance(item, io.Autogrow.Input):
            return None
        raise DiaphaneError(f"{what} got nothing. Check the node that is connected there: it gave no {kind}.")
    if isinstance(item, (io.Int.Input, io.Float.Input)):
        return _number(what, item, value)
    if isinstance(item, io.String.Input):
        return str(value)
    if isinstance(item, io.Combo.Input):
        # Which files there are may have changed since the schema was made; who opens it raises the error for one that is missing.
        if not isinstance(item, inputs.FileChoice) and value not in (item.options or []):
            choices = ", ".join(map(str, item.options or []))
            raise DiaphaneError(f"{what} has to be one of {choices}; got {value!r}. Change it, or what is connected to it.")
        return value
    if isinstance(item, io.Autogrow.Input):
        grown = item.template.input
        return {key: one if one is None else _allowed(f"{what}.{key}", grown, one) for key, one in value.items()}
    if isinstance(value, Mapping) and inputs.LAYERS.io_type in kind.split(","):
        return from_comfyui(value)
    needed, fits = TYPES.get(kind, ("", lambda _: True))
    if not fits(value):
        raise DiaphaneError(f"{what} has to be {needed} ({kind}), got a {type(value).__name__}. Connect an output of that kind.")
    return value


def _number(what: str, item: Any, value: Any) -> float:
    whole = isinstance(item, io.Int.Input)
    # NaN is neither below nor above anything.
    fits = isinstance(value, (int, float)) and item.min <= value <= item.max and (not whole or value == math.floor(value))
    if not fits:
        needed = f"a {'whole number' if whole else 'number'} from {item.min:g} to {item.max:g}"
        raise DiaphaneError(f"{what} has to be {needed}, got {value!r}. Change it, or what is connected to it.")
    return int(value) if whole else float(value)
