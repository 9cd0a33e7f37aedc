"""Attention sharing in a ComfyUI model of the SD1.5 family (docs/facts.md section 6).

Nothing in the model is replaced. Forward hooks add each frame's low-rank part to the projections, or ComfyUI merges it where there is
one frame alone; attention patches add the control signal before, the attention among frames after each attention module. So user LoRAs,
IPAdapter, PAG, FreeU and chunking go on working.

Shapes: N sets of F frames in a batch, row i being frame i % F; G conditions that ComfyUI runs at once; T tokens of C channels; M channels
of a control map.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import comfy.model_management as memory
import comfy.ops
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from einops import repeat
from torch import Tensor, nn

from ...errors import DiaphaneError, WeightsError
from ...nets.attention_sharing import PROJECTIONS, AttentionSharing, SharingUnit
from ...nets.operations import shapes_of
from ...pixels.fit import CROP
from ...weights.keys import excerpt, looks_like, sharing_control_channels, sharing_frames
from ..models.complete import check_complete
from .additional import attach, attached
from .control_maps import ControlMaps
from .forward_hooks import ForwardHook, ForwardHooks
from .predicted_mask import PredictedMask, check_mask_head
from .strength import FULL, Activity, Strength
from .unmerged import Patches
from .weight_patches import add_merged, low_rank_patch, weight_shapes

Block = tuple[str, int]

# In the order of the released files: the middle comes last.
BLOCKS: tuple[Block, ...] = (
    *(("input", i) for i in (1, 2, 4, 5, 7, 8)),
    *(("output", i) for i in range(3, 12)),
    ("middle", 0),
)
ATTENTIONS = ("attn1", "attn2")
# Where in the model each attention module is, in the same order.
PLACES: dict[tuple[Block, str], str] = {
    ((kind, i), attention): "diffusion_model."
    + (f"{kind}_blocks.{i}" if kind != "middle" else "middle_block")
    + f".1.transformer_blocks.0.{attention}"
    for kind, i in BLOCKS
    for attention in ATTENTIONS
}
# How often the latent has been halved in each block.
LEVELS: dict[Block, int] = {(kind, i): {"input": (i - 1) // 3, "output": 3 - i // 3, "middle": 3}[kind] for kind, i in BLOCKS}

# Channels of the control picture, and what they show.
GIVEN, GIVEN_AND_AREA = 3, 5
BESIDE = {0: "", GIVEN: " beside a given one", GIVEN_AND_AREA: " beside a given one and an area"}

OTHER_ENGINE = "load an SD1.5 checkpoint with ComfyUI's own loader"
OTHER_MODEL = "Load an SD1.5 checkpoint (distilled ones have fewer blocks)."


def share_attention(
    model: ModelPatcher,
    state_dict: Mapping[str, Tensor],
    *,
    control: Tensor | None = None,
    strength: Strength = FULL,
    fit: str = CROP,
    around: Sequence[float] = (),
    **fields: float,
) -> ModelPatcher:
    """A clone of `model` whose frames share attention; how many there are and their rank come from the weights.

    control: the given layer as an opaque picture [1, H, W, C] in [0, 1], for files that are steered by one; C is 3, and 5 (colours,
    area, precision) for a trained brush. fit: how it is brought to the size of the generation; around: what "fit" puts around it, for
    every channel. strength: of all that is added. fields: weight, start and end, in place of those of `strength`.
    Raises WeightsError if the file is no attention sharing file, needs a control picture or has no use for one, or is for another model.
    """
    strength = replace(strength, **fields)
    check_complete(state_dict, AttentionSharing, "a whole SD1.5 attention sharing file")
    shapes = shapes_of(state_dict)
    layout = AttentionSharing.from_shapes(shapes, device="meta")
    _check_control(sharing_control_channels(state_dict), control)
    _check_channels(shapes, len(layout.units), model)
    check_mask_head(layout, model)

    patched = model.clone()
    if strength.is_empty:
        return patched
    key = f"diaphane.{uuid.uuid4().hex}"
    activity = Activity(strength, patched, key)
    merged = layout.frames == 1 and strength.is_whole
    dtype = model.model.get_dtype_inference()

    def build() -> AttentionSharing:
        return AttentionSharing.from_shapes(shapes, comfy.ops.manual_cast, dtype=dtype, device=memory.unet_offload_device()).eval()

    def fill(net: AttentionSharing, assign: bool) -> None:
        net.load_state_dict(state_dict, assign=assign)
        for unit in net.units:
            unit.multiply_out(model.load_device, merged)

    net = attach(patched, key, build, fill)
    maps = None if control is None else ControlMaps(control, fit, net, key, around)
    sharing = Sharing(net, maps, activity, key)
    sharing.attach(patched)
    if maps is not None:
        maps.attach(patched)
    if net.mask_head is not None:
        PredictedMask(net.frames, activity, key).attach(patched)
    if merged:
        add_merged(patched, _changes(state_dict), strength.weight)
    else:
        patched.set_injections(key, [ForwardHooks(sharing.forward_hooks)])
    return patched


def check_arrangement(state_dict: Mapping[str, Tensor], *, frames: int, control: int) -> None:
    """Raise WeightsError unless a sharing file is for so many layers at once, and reads a control picture of so many channels (0: none)."""
    if (sharing_frames(state_dict), sharing_control_channels(state_dict)) != (frames, control):
        needed = f"{frames} {'layer' if frames == 1 else 'layers'}{BESIDE[control]}"
        raise WeightsError(f"This is not a file for {needed}. {looks_like(state_dict)} Choose another file, or auto.")


class Sharing:
    """The patches around the attention modules of one model."""

    def __init__(self, net: AttentionSharing, maps: ControlMaps | None, activity: Activity, key: str):
        """key: of the network, both among the model's additional ones and, while the model runs, in its options."""
        self.net = net
        self.frames = net.frames
        self.maps = maps
        self.activity = activity
        self.key = key
        self.input_key, self.others_key = f"{key}.input", f"{key}.others"
        self._patches = {
            attention: [partial(patch, attention) for patch in (self._before, self._inside, self._after)] for attention in ATTENTIONS
        }

    def attach(self, model: ModelPatcher) -> None:
        for attention, (before, inside, after) in self._patches.items():
            model.set_model_patch(before, f"{attention}_patch")
            model.set_model_patch(inside, f"{attention}_patch")
            model.set_model_patch(after, f"{attention}_output_patch")
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, self.key, self._outermost)

    def forward_hooks(self, patcher: ModelPatcher) -> dict[str, ForwardHook]:
        """Hooks for the projections of every attention module."""
        return {
            _projection(path, projection): _adding_hook(unit, projection, self.activity)
            for path, unit in zip(PLACES.values(), attached(patcher, self.key).units, strict=True)
            for projection in PROJECTIONS
        }

    def _outermost(
        self, executor: Any, x: Tensor, t: Tensor, c_concat: Any, c_crossattn: Any, control: Any, options: dict[str, Any], **kwargs: Any
    ) -> Tensor:
        """Wrapper of the model: runs our patches before and after those of all other nodes, which may change the tokens in between (ToMe).

        The network is that of the model that runs, which may be a copy on another card.
        """
        patches = dict(options.get("patches", {}))
        others = []
        for attention, (before, inside, after) in self._patches.items():
            theirs = [patch for patch in patches.get(f"{attention}_patch", ()) if patch is not before and patch is not inside]
            theirs_after = [patch for patch in patches.get(f"{attention}_output_patch", ()) if patch is not after]
            patches[f"{attention}_patch"] = [before, *theirs, inside]
            patches[f"{attention}_output_patch"] = [*theirs_after, after]
            others += theirs
        patcher = executor.class_obj.current_patcher
        net = None if patcher is None else attached(patcher, self.key)
        ours = {self.key: net or self.net, self.others_key: others, "patches": patches}
        return executor(x, t, c_concat, c_crossattn, control, {**options, **ours}, **kwargs)

    def _before(self, attention: str, x: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Patch for the input of an attention module, before those of other nodes: adds the control signal."""
        unit = self._unit(attention, options)
        if unit is None:
            return x, context, value
        self._check_batch(len(x) // len(options["cond_or_uncond"]))
        signal = None
        if self.maps is not None:
            signal = self._signal(unit, self.maps.map_for(LEVELS[options["block"]], options), x)
            controlled = x + signal
            # Self-attention looks at the controlled input.
            context, value = (controlled if y is x else y for y in (context, value))
            x = controlled
        options[self.input_key] = (x, signal)
        return x, context, value

    def _inside(self, attention: str, x: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Patch for the input of an attention module, after those of other nodes: checks that row i is still of frame i % F."""
        if self.frames > 1 and self._unit(attention, options) is not None:
            before = options[self.input_key][0]
            if not (len(x) == len(context) == len(value) and _same_frames(x, before, self.frames)):
                nodes = excerpt([*dict.fromkeys(map(_node_of, options.get(self.others_key, ())))])
                raise DiaphaneError(
                    "Layers that are generated together are told apart by their rows of the batch, which another node's patch of the "
                    f"model rearranges (as HyperTile does). Take that node out of this model's chain; it is one of: {nodes}."
                )
        return x, context, value

    def _after(self, attention: str, output: Tensor, options: dict[str, Any]) -> Tensor:
        """Patch for the output of an attention module, after all others: adds the control signal again and the attention among frames."""
        unit = self._unit(attention, options)
        if unit is None:
            return output
        x, signal = options.pop(self.input_key)
        mixed = unit.temporal(x + output, options["n_heads"], optimized_attention)
        output = torch.add(output, mixed, alpha=self.activity.weight)
        return output if signal is None else output + signal

    def _unit(self, attention: str, options: dict[str, Any]) -> SharingUnit | None:
        """The unit of the attention module whose options these are; None for modules that have none, and at steps without the patch."""
        return self._unit_of_block(attention, options) if self.activity.is_active() else None

    def _find(self, attention: str, options: dict[str, Any]) -> SharingUnit | None:
        # Not in the options if whoever runs the model leaves its wrappers out.
        units = options.get(self.key, self.net).units
        return dict(zip(PLACES, units, strict=True)).get((options["block"], attention))

    # Never part of a compiled block: ComfyUI drops the guards on its options, and every other block would get the same unit.
    _unit_of_block: Any = torch.compiler.disable(_find)

    def _signal(self, unit: SharingUnit, control_map: Tensor, x: Tensor) -> Tensor:
        """What a control map [G, M, h, w] adds to the input x [G N F, T, C] of an attention module."""
        signal = unit.control(control_map) * self.activity.weight
        sets = len(x) // (len(signal) * self.frames)
        return repeat(signal, "g f t c -> (g n f) t c", n=sets).to(x)

    def _check_batch(self, count: int) -> None:
        """count: rows of the latent batch; ComfyUI may run it several times at once, for several conditions."""
        if count % self.frames:
            raise DiaphaneError(
                f"This model generates {self.frames} layers at once, so the batch has to be a multiple of {self.frames}. "
                "Use Empty Layer Latent, which makes the right latent."
            )


def _adding_hook(unit: SharingUnit, projection: str, activity: Activity) -> ForwardHook:
    # It holds no `Sharing`, which would keep its patcher alive until the cycle collector has run twice.
    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return torch.add(output, unit.change(projection, args[0]), alpha=activity.weight) if activity.is_active() else None

    return add


def _same_frames(x: Tensor, before: Tensor, frames: int) -> bool:
    """Whether row i of x [R, T, C] is a row of frame i % F, as it is in `before` [N F, T', C].

    Rows may be repeated, as patches for regions do it; then their first tokens say which rows they are copies of.
    """
    if len(x) == len(before):
        return True
    if x.shape[1:] != before.shape[1:]:
        return False
    same = (x[:, None, 0] == before[None, :, 0]).all(dim=-1)
    row, from_row = (torch.arange(len(rows), device=x.device) % frames for rows in (x, before))
    return bool((same & (row[:, None] == from_row)).any(dim=1).all())


def _node_of(patch: Any) -> str:
    """A name for a patch of another node: its class, or the one that it is defined in."""
    patch = getattr(patch, "func", patch)  # of a functools.partial
    return getattr(patch, "__qualname__", type(patch).__qualname__).split(".")[0]


def _projection(path: str, projection: str) -> str:
    """Where in an attention module a projection is."""
    return f"{path}.to_{projection}{'.0' if projection == 'out' else ''}"


def _changes(state_dict: Mapping[str, Tensor]) -> Patches:
    """The low-rank changes of a file for one frame, as patches of the model's weights."""

    def part(layer: int, projection: str, name: str) -> Tensor:
        return state_dict[f"hookers.layers.{layer}.to_{projection}_lora.0.{name}.weight"]

    return {
        f"{_projection(path, projection)}.weight": low_rank_patch(part(layer, projection, "up"), part(layer, projection, "down"))
        for layer, path in enumerate(PLACES.values())
        for projection in PROJECTIONS
    }


def _check_control(channels: int, control: Tensor | None) -> None:
    """channels: that the file's control encoder reads, 0 if it has none."""
    if not channels and control is not None:
        raise WeightsError(
            "This attention sharing file takes no given layer. Choose a foreground -> background or background -> foreground file."
        )
    if channels and control is None:
        raise WeightsError("This attention sharing file needs a given layer. Use LayerDiffuse Joint From Layer.")
    if control is not None and control.shape[-1] != channels:
        raise WeightsError(
            f"This attention sharing file reads {channels} channels beside the layers, got {control.shape[-1]}: "
            f"{GIVEN} are the given layer's colours, {GIVEN_AND_AREA} are those, an area and its precision. Choose another file, or auto."
        )


def _check_channels(shapes: Mapping[str, tuple[int, ...]], count: int, model: ModelPatcher) -> None:
    """count: units of the file."""
    if count != len(PLACES):
        raise WeightsError(f"This attention sharing file has {count} layers, SD1.5 has {len(PLACES)}. Choose another file.")
    keys = [f"{_projection(path, projection)}.weight" for path in PLACES.values() for projection in PROJECTIONS]
    needed = weight_shapes(model, keys, other_engine=OTHER_ENGINE, other_model=OTHER_MODEL)
    for layer, path in enumerate(PLACES.values()):
        got_q, got_k = (
            shapes[f"hookers.layers.{layer}.to_q_lora.0.up.weight"][0],
            shapes[f"hookers.layers.{layer}.to_k_lora.0.down.weight"][1],
        )
        needed_q, needed_k = needed[f"{path}.to_q.weight"][0], needed[f"{path}.to_k.weight"][1]
        if (got_q, got_k) != (needed_q, needed_k):
            raise WeightsError(
                f"This attention sharing file does not fit the model: {path} has {needed_q} channels and attends to {needed_k}, "
                f"the file {got_q} and {got_k}. Use an SD1.5 checkpoint."
            )
