"""Attention sharing in a ComfyUI model of the SD1.5 family (docs/facts.md section 6).

Nothing in the model is replaced. Forward hooks add each frame's low-rank part to the projections, or the host merges it where there is
one frame alone; attention patches add the control signal before, the attention among frames after each attention module. So user LoRAs,
IPAdapter, PAG, FreeU and chunking go on working.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import comfy.model_management as memory
import comfy.ops
import comfy.utils
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...errors import DiaphaneError, WeightsError
from ...nets.attention_sharing import PROJECTIONS, AttentionSharing, SharingUnit
from ...nets.operations import shapes_of
from ...pixels.fit import CROP
from ...weights.keys import excerpt, looks_like, sharing_frames, sharing_has_control
from ..models.complete import check_complete
from .additional import attach, attached
from .control_maps import ControlPicture
from .deltas import add_merged, check_network, low_rank_patch, weight_shapes
from .forward_hooks import ForwardHook, ForwardHooks
from .strength import SigmaWindow
from .unmerged import Patches

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


def share_attention(
    model: ModelPatcher,
    state_dict: Mapping[str, Tensor],
    *,
    control: Tensor | None = None,
    weight: float = 1.0,
    start: float = 0.0,
    end: float = 1.0,
    fit: str = CROP,
) -> ModelPatcher:
    """A clone of `model` whose frames share attention; how many there are and their rank come from the weights.

    control: the given layer as an opaque picture [1, H, W, 3] in [0, 1], for files that are steered by one; fit: how it is brought to
    the size of the generation. weight: strength of all that is added. start, end: the part of the sampling in which it is active.
    Raises WeightsError if the file is no attention sharing file, needs a control picture or has no use for one, or is for another model.
    """
    check_complete(state_dict, AttentionSharing, "a whole SD1.5 attention sharing file")
    layout = AttentionSharing.from_shapes(shapes_of(state_dict), device="meta")
    _check_control(layout, control)
    _check_widths(layout, model)

    patched = model.clone()
    window = SigmaWindow(start, end)
    if weight == 0.0 or window.is_empty:
        return patched
    merged = layout.frames == 1 and window.is_whole
    if merged:
        add_merged(patched, _only_changes(state_dict), weight)
    key = f"diaphane.{uuid.uuid4().hex}"
    dtype, load_device = model.model.get_dtype_inference(), model.load_device

    def build() -> AttentionSharing:
        shapes, device = shapes_of(state_dict), memory.unet_offload_device()
        return AttentionSharing.from_shapes(shapes, comfy.ops.manual_cast, dtype=dtype, device=device).eval()

    def fill(net: AttentionSharing, assign: bool) -> None:
        net.load_state_dict(state_dict, assign=assign)
        if merged:
            for unit in net.units:
                unit.drop_changes()
        net.fuse(comfy.ops.manual_cast, load_device)

    net = attach(patched, key, build, fill)
    picture = ControlPicture(control, fit, net, key) if control is not None else None
    sharing = Sharing(net, picture, weight, window, key)
    if not merged:
        patched.set_injections(key, [ForwardHooks(sharing.forward_hooks)])
    sharing.attach(patched)
    if picture is not None:
        picture.attach(patched)
    if not window.is_whole:
        window.attach(patched, key)
    return patched


def check_arrangement(state_dict: Mapping[str, Tensor], *, frames: int, control: bool) -> None:
    """Raise WeightsError unless a sharing file is for so many layers at once and does, or does not, take a given one."""
    if (sharing_frames(state_dict), sharing_has_control(state_dict)) != (frames, control):
        needed = f"{frames} {'layer' if frames == 1 else 'layers'}{' beside a given one' if control else ''}"
        raise WeightsError(f"This is not a file for {needed}. {looks_like(state_dict)} Choose another file, or auto.")


class Sharing:
    """The patches around the attention modules of one model."""

    def __init__(self, net: AttentionSharing, picture: ControlPicture | None, weight: float, window: SigmaWindow, key: str):
        """key: of the network, both among the model's additional ones and, while the model runs, in its options."""
        self.net = net
        self.frames = net.frames
        self.picture = picture
        self.weight = weight
        self.window = window
        self.key = key
        self.input_key, self.others_key = f"{key}.input", f"{key}.others"
        self._patches = {attention: (self.before(attention), self.inside(attention), self.after(attention)) for attention in ATTENTIONS}

    def attach(self, model: ModelPatcher) -> None:
        for attention, (before, inside, after) in self._patches.items():
            model.set_model_patch(before, f"{attention}_patch")
            model.set_model_patch(inside, f"{attention}_patch")
            model.set_model_patch(after, f"{attention}_output_patch")
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, self.key, self._outermost)

    def forward_hooks(self, patcher: ModelPatcher) -> dict[str, ForwardHook]:
        """Hooks for the projections of every attention module."""
        return {
            _projection(path, projection): _adding_hook(unit, projection, self.weight, self.window)
            for path, unit in zip(PLACES.values(), attached(patcher, self.key).units, strict=True)
            for projection in PROJECTIONS
        }

    def _outermost(
        self, executor: Any, x: Tensor, t: Tensor, c_concat: Any, c_crossattn: Any, control: Any, options: dict[str, Any], **kwargs: Any
    ) -> Tensor:
        """Wrapper of the model: puts our patches around those of all other nodes, which may change the tokens in between (ToMe).

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

    def before(self, attention: str) -> Any:
        """Patch for the input of an attention module, before those of other nodes: adds the control signal."""

        def patch(x: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
            unit = self._unit(attention, options)
            if unit is None:
                return x, context, value
            self._check_batch(len(x) // len(options["cond_or_uncond"]))
            signal = None
            if self.picture is not None:
                signal = self._signal(unit, self.picture.map_for(LEVELS[options["block"]], options), x)
                controlled = x + signal
                # Self-attention looks at the controlled input.
                context, value = (controlled if y is x else y for y in (context, value))
                x = controlled
            options[self.input_key] = (x, signal)
            return x, context, value

        return patch

    def inside(self, attention: str) -> Any:
        """Patch for the input of an attention module, after those of other nodes: sees whether rows still name frames."""

        def patch(x: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
            if self.frames > 1 and self._unit(attention, options) is not None:
                before = options[self.input_key][0]
                if not (len(x) == len(context) == len(value) and _same_frames(x, before, self.frames)):
                    nodes = excerpt([*dict.fromkeys(map(_node_of, options.get(self.others_key, ())))])
                    raise DiaphaneError(
                        "Layers that are generated together are told apart by their rows of the batch, which another node's patch of the "
                        f"model rearranges (as HyperTile does). Take that node out of this model's chain; it is one of: {nodes}."
                    )
            return x, context, value

        return patch

    def after(self, attention: str) -> Any:
        """Patch for the output of an attention module, after all others: adds the control signal again and the attention among frames."""

        def patch(output: Tensor, options: dict[str, Any]) -> Tensor:
            unit = self._unit(attention, options)
            if unit is None:
                return output
            x, signal = options.pop(self.input_key)
            mixed = unit.temporal(x + output, options["n_heads"], optimized_attention)
            output = torch.add(output, mixed, alpha=self.weight)
            return output if signal is None else output + signal

        return patch

    def _unit(self, attention: str, options: dict[str, Any]) -> SharingUnit | None:
        return _unit_of_block(self, attention, options) if self.window.is_open() else None

    def _signal(self, unit: SharingUnit, control_map: Tensor, x: Tensor) -> Tensor:
        signal = unit.control(control_map) * self.weight  # GFTC
        sets = x.shape[0] // (signal.shape[0] * self.frames)
        return signal.unsqueeze(1).expand(-1, sets, -1, -1, -1).reshape(x.shape).to(x)

    def _check_batch(self, count: int) -> None:
        """count: rows of the latent batch; the host may run it several times at once, for several conditions."""
        if count % self.frames:
            raise DiaphaneError(
                f"This model generates {self.frames} layers at once, so the batch has to be a multiple of {self.frames}. "
                "Use Empty Layer Latent, which makes the right latent."
            )


def _adding_hook(unit: SharingUnit, projection: str, weight: float, window: SigmaWindow) -> ForwardHook:
    # It holds no `Sharing`, which would outlive its patcher with it until the cycle collector has run twice.
    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return torch.add(output, unit.change(projection, args[0]), alpha=weight) if window.is_open() else None

    return add


def _find(sharing: Sharing, attention: str, options: dict[str, Any]) -> SharingUnit | None:
    # Not in the options if whoever runs the model leaves its wrappers out.
    units = options.get(sharing.key, sharing.net).units
    return dict(zip(PLACES, units, strict=True)).get((options["block"], attention))


# Never part of a compiled block: the host drops the guards on its options, and every other block would get the same unit.
_unit_of_block: Any = torch.compiler.disable(_find)


def _same_frames(x: Tensor, before: Tensor, frames: int) -> bool:
    """Whether row i of x [R, T, C] is a row of frame i % frames, as it is in `before` [N frames, T', C].

    Rows may be repeated, as patches for regions do it; then their first tokens tell where they are from.
    """
    if len(x) == len(before):
        return True
    if x.shape[1:] != before.shape[1:]:
        return False
    same = (x[:, None, 0] == before[None, :, 0]).all(dim=-1)
    row, from_row = (torch.arange(len(rows), device=x.device) % frames for rows in (x, before))
    return bool((same & (row[:, None] == from_row)).any(dim=1).all())


def _node_of(patch: Any) -> str:
    """What a patch of another node is known by: the class that it is from, or that it is made in."""
    return getattr(patch, "__qualname__", type(patch).__qualname__).split(".")[0]


def _projection(path: str, projection: str) -> str:
    """Where in an attention module a projection is."""
    return f"{path}.to_{projection}{'.0' if projection == 'out' else ''}"


def _only_changes(state_dict: Mapping[str, Tensor]) -> Patches:
    """The low-rank changes of a file for one frame, as patches of the model's weights."""

    def part(layer: int, projection: str, name: str) -> Tensor:
        return state_dict[f"hookers.layers.{layer}.to_{projection}_lora.0.{name}.weight"]

    return {
        f"{_projection(path, projection)}.weight": low_rank_patch(part(layer, projection, "up"), part(layer, projection, "down"))
        for layer, path in enumerate(PLACES.values())
        for projection in PROJECTIONS
    }


def _check_control(net: AttentionSharing, control: Tensor | None) -> None:
    if net.kwargs_encoder is None and control is not None:
        raise WeightsError(
            "This attention sharing file takes no given layer. Choose a foreground -> background or background -> foreground file."
        )
    if net.kwargs_encoder is not None and control is None:
        raise WeightsError("This attention sharing file needs a given layer. Use LayerDiffuse Joint From Layer.")


def _check_widths(net: AttentionSharing, model: ModelPatcher) -> None:
    if len(net.units) != len(PLACES):
        raise WeightsError(f"This attention sharing file has {len(net.units)} layers, SD1.5 has {len(PLACES)}. Choose another file.")
    keys = {f"{_projection(path, projection)}.weight" for path in PLACES.values() for projection in PROJECTIONS}
    missing = sorted(keys - weight_shapes(model, keys).keys())
    check_network(model, missing, "load an SD1.5 checkpoint with ComfyUI's own loader")
    if missing:
        raise WeightsError(
            f"The model lacks {len(missing)} of the {len(keys)} weights that this file changes, e.g. {excerpt(missing)}. "
            "Load an SD1.5 checkpoint (distilled ones have fewer blocks)."
        )
    for path, unit in zip(PLACES.values(), net.units, strict=True):
        module = comfy.utils.get_attr(model.model, path)
        got = (unit.width, unit.context_width)
        needed = (module.to_q.out_features, module.to_k.in_features)
        if got != needed:
            raise WeightsError(
                f"This attention sharing file does not fit the model: {path} has widths {needed}, the file {got}. Use an SD1.5 checkpoint."
            )
