"""A trained brush: its areas, its outlines, its loss, and what it starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_layerdiffuse.nets.attention_sharing import AttentionSharing
from training.data.latents import LatentSet
from training.data.precision import COARSEST, area, box
from training.data.procedural import layers, named_by_shape, seen_sprites
from training.data.sprites import outline, paint
from training.data.tokens import procedural_tokens
from training.loop import Run, draws_for, train
from training.mini import CONTROL_WIDTHS, UNET
from training.models.schedule import VELOCITY
from training.models.text_encoder import TextEncoder
from training.models.unet import UNet
from training.stages.brush import MASK_WEIGHT, BrushObjective, brush_from, cells, dice
from training.stages.diffusion import sharing_for

SIDE = 64


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 70), st.integers(8, 70), st.floats(0.001, 0.4))
def test_areas_are_nested_between_the_outline_and_its_box(seed: int, height: int, width: int, share: float) -> None:
    outlined = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share
    areas = [area(outlined, s) for s in range(COARSEST + 1)]
    assert torch.equal(areas[0], outlined) and torch.equal(areas[-1], box(outlined))
    for finer, coarser in zip(areas, areas[1:], strict=False):
        assert not (finer & ~coarser).any()


def test_areas_of_a_sprite_grow_step_by_step() -> None:
    outlined = outline(seen_sprites(1, torch.Generator().manual_seed(3)), 128)[0, 0]
    sizes = [int(area(outlined, s).sum()) for s in range(COARSEST + 1)]
    assert sizes == sorted(set(sizes))


def test_an_outline_holds_the_body_of_glass_and_not_the_halo_of_a_glow() -> None:
    sprites = seen_sprites(60, torch.Generator().manual_seed(5))
    inside, alpha = outline(sprites, SIDE), paint(sprites, SIDE)[:, 3:]
    solid, glass, glow = (sprites.material == material for material in range(3))
    assert torch.equal(inside[solid], alpha[solid] > 0.5)
    assert (alpha[glass][inside[glass]] < 0.5).float().mean() > 0.5
    assert (alpha[glow][~inside[glow]] > 0.5).any()
    assert torch.equal(layers(4, SIDE, torch.Generator().manual_seed(2)).outline, outline_of_the_same(4))


def outline_of_the_same(count: int) -> Tensor:
    return outline(seen_sprites(count, torch.Generator().manual_seed(2)), SIDE)


def test_some_prompts_name_only_the_shape() -> None:
    drawn = layers(40, 8, torch.Generator().manual_seed(1))
    short = named_by_shape(drawn, 0.5, torch.Generator().manual_seed(1))
    changed = [now for before, now in zip(drawn.foreground_captions, short.foreground_captions, strict=True) if now != before]
    assert 10 <= len(changed) <= 30 and all(len(caption.split()) == 2 for caption in changed)
    assert all(whole.startswith(own) for own, whole in zip(short.foreground_captions, short.blended_captions, strict=True))


def brush(*, mask_head: bool = True) -> BrushObjective:
    torch.manual_seed(0)
    unet, text_encoder = UNet(UNET).requires_grad_(False), TextEncoder(UNET.context_dim, 1, 4).requires_grad_(False)
    start = sharing_for(unet, 2, 2, CONTROL_WIDTHS).state_dict()
    drawn = layers(6, SIDE, torch.Generator().manual_seed(4))
    tokens = torch.stack([procedural_tokens(drawn.foreground_captions), procedural_tokens(drawn.blended_captions)], dim=1)
    latents, without = torch.randn(6, 2, 4, 8, 8), torch.randn(6, 2, 4, 8, 8)
    data = LatentSet(latents, tokens, (drawn.background * 255).to(torch.uint8), drawn.outline.to(torch.uint8), without)
    sharing = brush_from(start, UNET.model_channels, mask_head=mask_head)
    return BrushObjective(unet, text_encoder, data, prediction=VELOCITY, sharing=sharing)


def test_a_few_steps_lower_both_losses(tmp_path: Path) -> None:
    objective = brush()
    run = Run(tmp_path, steps=15, batch=4, learning_rate=3e-3, warm_up=1, cpu=True)
    before = objective(draws_for(run, 0))
    assert before["total"].item() == pytest.approx((before["squared"] + MASK_WEIGHT * before["mask"]).item())
    train(run, objective)
    after = objective(draws_for(run, 0))
    assert after["squared"] < before["squared"] and after["mask"] < before["mask"]


def test_without_a_mask_head_there_is_no_second_loss() -> None:
    losses = brush(mask_head=False)(draws_for(Run(Path(), steps=1, batch=4, learning_rate=1.0), 0))
    assert losses.keys() == {"total", "squared"}


def test_what_is_outside_of_the_area_is_given_and_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = brush()
    draws = draws_for(Run(Path(), steps=1, batch=4, learning_rate=1.0), 3)
    seen = []
    whole = UNet.features
    monkeypatch.setattr(UNet, "features", lambda self, x, *rest: (seen.append(x), whole(self, x, *rest))[1])
    step = objective.step(draws_for(Run(Path(), steps=1, batch=4, learning_rate=1.0), 3))
    losses = objective(draws)
    assert objective.data.without is not None
    given = objective.data.without[step.items].flatten(0, 1)
    kept = (seen[0] == given).all(dim=1)
    assert kept.any() and not kept.all()
    # The target outside does not count: other latents there give the same loss.
    objective.data.latents[step.items] = torch.where(kept.view(4, 2, 1, 8, 8), 9.0, objective.data.latents[step.items])
    assert objective(draws_for(Run(Path(), steps=1, batch=4, learning_rate=1.0), 3))["squared"] == losses["squared"]


def test_cells_are_those_that_an_area_touches() -> None:
    plane = torch.zeros(1, 1, 24, 24)
    plane[..., 7, 8] = 1e-3
    assert cells(plane).nonzero().tolist() == [[0, 0, 0, 1]]


def test_dice_is_nothing_for_the_same_mask_and_all_for_another_one() -> None:
    left = torch.zeros(2, 1, 8, 8)
    left[..., :4] = 1
    assert dice(left, left) == 0 and dice(1 - left, left) == 1


def test_a_brush_starts_as_the_network_that_it_continues_with_a_wider_control_encoder() -> None:
    start = sharing_for(UNet(UNET), 2, 2, CONTROL_WIDTHS).state_dict()
    widened = brush_from(start, 32).state_dict()
    first = "kwargs_encoder.blocks_0.0.weight"
    assert widened[first].shape[1] == 5 and torch.equal(widened[first][:, :3], start[first])
    assert float(widened[first][:, 3:].std()) == pytest.approx(float(start[first].std()), rel=0.3)
    assert all(torch.equal(widened[key], tensor) for key, tensor in start.items() if key != first)
    assert widened.keys() - start.keys() == {"mask_head.weight", "mask_head.bias"}
    assert AttentionSharing.from_state_dict(widened).object_mask(torch.zeros(2, 32, 5, 7)).shape == (2, 1, 40, 56)
    with pytest.raises(ValueError, match="layers beside a given background"):
        brush_from(sharing_for(UNet(UNET), 3, 2).state_dict(), 32)


def test_sets_without_outlines_are_stored_as_before(tmp_path: Path) -> None:
    plain = LatentSet(torch.zeros(2, 1, 4, 2, 2), torch.zeros(2, 1, 77, dtype=torch.long))
    both = LatentSet.joined([plain, plain])
    both.save(tmp_path / "set.safetensors")
    again = LatentSet.load(tmp_path / "set.safetensors")
    assert len(again) == 4 and again.control is again.outline is again.without is None
