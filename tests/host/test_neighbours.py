"""Our patches beside nodes that change the tokens or rows that attention sees, before and after ours, each against its reference.

The reference is written out (reference.py), and has the other node's patches where they belong: around the attention itself, inside of
the control signal and of the attention among frames.
"""

# ComfyUI is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import comfy.samplers
import pytest
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_tomesd import TomePatchModel
from torch import Tensor

from dev.stand_ins.seeded import seeded_noise
from lib_layerdiffuse.comfyui.patch.attention_sharing import BLOCKS, share_attention
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
from lib_layerdiffuse.errors import DiaphaneError
from tests.host.reference import (
    as_the_host_runs,
    assert_differ,
    assert_no_hooks,
    assert_same,
    build_model,
    changed,
    delta_changes,
    noise,
    prompt,
    result_of,
    sample,
    stand_in_deltas,
    stand_in_sharing,
)
from tests.host.shared_attention import Shared, SharedAttention

Apply = Callable[[ModelPatcher], ModelPatcher]

PICTURE = torch.sigmoid(seeded_noise("picture", (1, 128, 128, 3)))
FRAMES = {"transparent, switchable": 1, "joint": 3, "from layer": 2}
# One frame is merged, so a neighbour meets no code of ours unless it can be switched off; "from layer" has all that "joint" has.
MODES = ["transparent, switchable", "from layer", "sdxl transparent"]


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


# The neighbours


def merging(model: ModelPatcher) -> ModelPatcher:
    node: Any = TomePatchModel
    return result_of(node.execute(model, 0.5))


def tiling(model: ModelPatcher) -> ModelPatcher:
    node: Any = HyperTile
    output = node.execute(model, 64, 2, 0, False)
    return output[0] if isinstance(output, tuple) else result_of(output)


def shrinking(model: ModelPatcher) -> ModelPatcher:
    node: Any = PatchModelAddDownscale
    return result_of(node.execute(model, 3, 2.0, 0.0, 1.0, True, "bicubic", "bicubic"))


def coupling(model: ModelPatcher) -> ModelPatcher:
    """What attention couple nodes do: the positive prompt's rows once more with another text, which the right half gets."""

    def repeated(x: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        parts = options["cond_or_uncond"]
        rows, texts = [], []
        for part, own, text in zip(parts, x.chunk(len(parts)), context.chunk(len(parts)), strict=True):
            rows += [own] if part else [own, own]
            texts += [text] if part else [text, seeded_noise("region", text.shape[1:]).expand_as(text)]
        return torch.cat(rows), torch.cat(texts), torch.cat(texts)

    def joined(output: Tensor, options: dict[str, Any]) -> Tensor:
        parts = options["cond_or_uncond"]
        pieces = list(output.chunk(len(parts) + parts.count(0)))
        height, width = options["activations_shape"][-2:]
        right = (torch.arange(width).repeat(height) >= width // 2)[None, :, None].to(output)
        rows = [pieces.pop(0) if part else pieces.pop(0) * (1 - right) + pieces.pop(0) * right for part in parts]
        return torch.cat(rows)

    result = model.clone()
    result.set_model_attn2_patch(repeated)
    result.set_model_attn2_output_patch(joined)
    return result


def perturbing(model: ModelPatcher) -> ModelPatcher:
    node: Any = PerturbedAttentionGuidance
    return result_of(node.execute(model, 3.0))


def showing(model: ModelPatcher) -> ModelPatcher:
    """What IPAdapter nodes do: cross attention plus one over the tokens of a picture."""

    def attention(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        tokens = seeded_noise("tokens", (4, 128))[None, :, : q.shape[-1]].repeat(len(q), 1, 1)
        return optimized_attention(q, k, v, options["n_heads"]) + 0.8 * optimized_attention(q, tokens, tokens, options["n_heads"])

    result = model.clone()
    for kind, number in BLOCKS:
        result.set_model_attn2_replace(attention, kind, number)
    return result


NEIGHBOURS: dict[str, Apply] = {
    "ToMe": merging,
    "HyperTile": tiling,
    "Deep Shrink": shrinking,
    "attention couple": coupling,
    "PAG": perturbing,
    "IPAdapter": showing,
}
each_order = pytest.mark.parametrize("order", ["before", "after"])


# The references


class Around(SharedAttention):
    """A written-out unit around an attention that other nodes have patched."""

    level = 0
    patches: tuple[list[Any], list[Any]] = ([], [])
    replace: Any = None

    def sized_signal(self, row: int, size: list[int]) -> Tensor:
        """The control signal of the unit's own level, at the size that another node has given it."""
        maps = self.pictures[0]
        kept = maps[self.level]
        self.pictures[0] = [F.adaptive_avg_pool2d(kept[None], size)[0]]
        try:
            return self.signal(row, row % self.frames, size[0] * size[1])
        finally:
            self.pictures[0] = maps

    def forward(self, x: Tensor, context: Any = None, value: Any = None, mask: None = None, transformer_options: Any = None) -> Tensor:
        options = {**transformer_options, "n_heads": self.heads}
        size = options["activations_shape"][-2:]
        seen = x + torch.stack([self.sized_signal(row, size) for row in range(len(x))]) if self.pictures else x
        n, text = seen, seen if context is None else context
        value = text
        for patch in self.patches[0]:
            n, text, value = patch(n, text, value, options)
        # HyperTile leaves keys and values whole; ComfyUI deals their tokens out to the tiles as they lie in memory.
        text, value = (y.reshape(len(n), -1, y.shape[-1]) for y in (text, value))
        q, k, v = (
            torch.stack([F.linear(row, self.projection(name, i % self.frames)) for i, row in enumerate(y)])
            for name, y in zip("qkv", (n, text, value), strict=True)
        )
        if self.replace is not None:
            found = self.replace(q, k, v, options)
        else:
            found = v if self.perturbed else torch.stack([self.attend(*row)[0] for row in zip(q, k, v, strict=True)])
        out = torch.stack([F.linear(row, self.projection("out", i % self.frames), self.bias) for i, row in enumerate(found)])
        for patch in self.patches[1]:
            out = patch(out, options)
        return torch.stack(self.shared(list(seen + out))) - x


def written_out(base: ModelPatcher, weights: dict[str, Tensor], picture: Tensor | None, neighbour: str) -> ModelPatcher:
    shared = Shared(base, weights, picture=picture, unit_class=Around)
    result = shared.model.clone() if neighbour == "PAG" else NEIGHBOURS[neighbour](shared.model)
    options = result.model_options["transformer_options"]
    patches, replaced = options.get("patches", {}), options.get("patches_replace", {})
    taken = {name: (patches.pop(f"{name}_patch", []), patches.pop(f"{name}_output_patch", [])) for name in ("attn1", "attn2")}
    replacing = next(iter(replaced.pop("attn2", {}).values()), None)
    for (block, name), unit in shared.units.items():
        kind, _, number = block.partition(".")
        unit.level = {"input_blocks": int(number or 0) // 3, "output_blocks": 3 - int(number or 0) // 3, "middle_block": 3}[kind]
        unit.patches = taken[name]
        unit.replace = replacing if name == "attn2" else None
    if neighbour == "PAG":
        result.set_model_sampler_post_cfg_function(perturbed_by_hand(shared.units["middle_block", "attn1"]))
    return result


def perturbed_by_hand(unit: SharedAttention) -> Callable[[dict[str, Any]], Tensor]:
    def by_hand(args: dict[str, Any]) -> Tensor:
        unit.perturbed = True
        (perturbed,) = comfy.samplers.calc_cond_batch(args["model"], [args["cond"]], args["input"], args["sigma"], args["model_options"])
        unit.perturbed = False
        return args["denoised"] + 3.0 * (args["cond_denoised"] - perturbed)

    return by_hand


class Case:
    def __init__(self, mode: str, base: ModelPatcher):
        self.mode = mode
        self.base = base
        self.frames = FRAMES.get(mode, 1)
        self.picture = PICTURE if mode == "from layer" else None
        self.weights = stand_in_sharing(self.frames, control=self.picture is not None) if mode in FRAMES else stand_in_deltas("lora")

    def ours(self, model: ModelPatcher) -> ModelPatcher:
        if self.mode not in FRAMES:
            return apply_deltas(model, self.weights)
        return share_attention(model, self.weights, control=self.picture, end=0.999 if "switchable" in self.mode else 1.0)

    def patched(self, neighbour: str, order: str) -> ModelPatcher:
        node = NEIGHBOURS[neighbour]
        return self.ours(node(self.base)) if order == "before" else node(self.ours(self.base))

    def reference(self, neighbour: str) -> ModelPatcher:
        if self.mode in FRAMES:
            return written_out(self.base, self.weights, self.picture, neighbour)
        return NEIGHBOURS[neighbour](changed(self.base, delta_changes(self.weights)))

    def sample(self, model: ModelPatcher) -> Tensor:
        torch.manual_seed(3)  # what ToMe and HyperTile draw
        family = "sd15" if self.mode in FRAMES else "sdxl"
        return sample(model, prompt(family, 1), prompt(family, 2), noise(2 * self.frames), steps=1)


@pytest.fixture(scope="module")
def bases() -> dict[str, ModelPatcher]:
    return {"sd15": build_model("sd15"), "sdxl": build_model("sdxl")}


@pytest.fixture(scope="module", params=MODES)
def case(request: pytest.FixtureRequest, bases: dict[str, ModelPatcher]) -> Case:
    return Case(request.param, bases["sd15" if request.param in FRAMES else "sdxl"])


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_before_and_after_ours(case: Case, neighbour: str) -> None:
    """In either order: what both do, or, where rows no longer name layers, one sentence that says which node it is."""
    if neighbour == "HyperTile" and case.frames > 1:
        for order in ("before", "after"):
            with pytest.raises(DiaphaneError, match=r"Take that node out of this model's chain; it is one of: HyperTile\."):
                case.sample(case.patched(neighbour, order))
        return
    plain = case.sample(NEIGHBOURS[neighbour](case.base))
    alone = case.sample(case.ours(case.base))
    expected = case.sample(case.reference(neighbour))
    if case.mode in FRAMES:  # in SDXL, no attention is at the resolution that ToMe and HyperTile work at by default
        assert_differ(expected, alone)
    for order in ("before", "after"):
        assert_same(case.sample(case.patched(neighbour, order)), expected, plain)
    assert_no_hooks(case.base)


@each_order
def test_rows_of_other_frames_are_refused(bases: dict[str, ModelPatcher], order: str) -> None:
    """As many rows as whole sets have, but in another order: they would get the changes of other layers."""
    case = Case("joint", bases["sd15"])

    def repeating(model: ModelPatcher) -> ModelPatcher:
        def each_row_twice(x: Tensor, context: Tensor, value: Tensor, _: Any) -> tuple[Tensor, ...]:
            return tuple(y.repeat_interleave(2, dim=0) for y in (x, context, value))

        result = model.clone()
        result.set_model_attn2_patch(each_row_twice)
        result.set_model_attn2_output_patch(lambda output, _: output[::2])
        return result

    patched = case.ours(repeating(case.base)) if order == "before" else repeating(case.ours(case.base))
    with pytest.raises(DiaphaneError, match="rows of the batch.*one of: test_rows_of_other_frames_are_refused"):
        case.sample(patched)
