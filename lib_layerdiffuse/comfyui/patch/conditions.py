"""What patches hand to the model with the conditions of a sampling."""

from __future__ import annotations

from typing import Any


def given_to_all(conds: list[Any], key: str, value: Any) -> list[Any]:
    """Copies of the conditions of `calc_cond_batch` in which each entry has `value`, one of `comfy.conds`, under `key`.

    As part of each condition, ComfyUI crops it to the condition's area and batches it with the others. The negative ones get it, too:
    otherwise they could not run in one batch with the positive ones.
    """
    return [
        None if entries is None else [{**entry, "model_conds": {**entry["model_conds"], key: value}} for entry in entries]
        for entries in conds
    ]
