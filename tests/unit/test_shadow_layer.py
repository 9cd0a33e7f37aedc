"""Shadows and light are found in blended pictures, nothing is found where there is none, and the layers give the picture back."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.pixels.composite import Layer, composite
from lib_layerdiffuse.pixels.fit import CROP, FITS, fit_to
from lib_layerdiffuse.pixels.shadow import drop_shadow
from lib_layerdiffuse.pixels.shadow_layer import HIDDEN, shadow_layer
from training.data.procedural import seen_sprites
from training.data.scenes import SCENES, draw_scenes, paint_scenes
from training.data.sprites import paint

COUNT, SIDE = 64, 128
NOISE = 10 ** (-30 / 20)  # 30 dB below 1
SMOOTH, THRESHOLD = 3.0, 0.03


@dataclass(frozen=True)
class Case:
    """Sprites on scenes, each scene as often as the others; the shadows or lights that they cast, and all together with noise."""

    background: Tensor
    layer: Tensor
    cast: Tensor  # [B, H, W, 4]
    mode: str
    seed: int

    def together(self, cast: Tensor | None = None) -> Tensor:
        """What the layers look like; without the shadow or light, or with one."""
        between = [] if cast is None else [Layer(cast, mode=self.mode)]
        return composite([Layer(self.background), *between, Layer(self.layer)], SIDE, SIDE)

    def noisy(self, picture: Tensor) -> Tensor:
        noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(self.seed))
        return (picture + NOISE * noise).clamp(0.0, 1.0)

    @property
    def visible(self) -> Tensor:
        return self.layer[..., 3] < HIDDEN


def cast_by(layers: Tensor, colours: Tensor, opacities: Tensor) -> Tensor:
    """Drop shadows 8 pixels to the right and down, as pictures of the layers' size."""
    shadows = []
    for layer, colour, opacity in zip(layers, colours, opacities, strict=True):
        one = drop_shadow(Layer(layer[None]), 8, 8, 8.0, 0.0, tuple(colour.tolist()), opacity.item())
        shadows.append(composite([one], SIDE, SIDE))
    return torch.cat(shadows)


def made(mode: str, seed: int = 301) -> Case:
    generator = torch.Generator().manual_seed(seed)
    scenes = draw_scenes(COUNT, generator)
    scenes.kind[:] = torch.arange(COUNT) % len(SCENES)
    layers = paint(seen_sprites(COUNT, generator), SIDE).movedim(1, -1)
    opacities = torch.rand(COUNT, generator=generator) * 0.6 + 0.2
    colours = torch.rand(COUNT, 3, generator=generator) * 0.6 + 0.2 if mode == "add" else torch.zeros(COUNT, 3)
    return Case(paint_scenes(scenes, SIDE).movedim(1, -1), layers, cast_by(layers, colours, opacities), mode, seed)


@pytest.fixture(scope="module")
def shadows() -> Case:
    return made("normal")


@pytest.fixture(scope="module")
def lights() -> Case:
    return made("add")


def psnr(a: Tensor, b: Tensor) -> float:
    return -10.0 * (a - b).square().mean().log10().item()


def test_shadows_are_found(shadows: Case) -> None:
    alpha = shadows.cast[..., 3]
    shadow, light = shadow_layer(shadows.background, shadows.layer, shadows.noisy(shadows.together(shadows.cast)), SMOOTH, THRESHOLD)
    error = (shadow[..., 3] - alpha).abs()
    assert error.mean() <= 0.03 and error[shadows.visible].mean() <= 0.015
    assert light[..., 3].mean() <= 0.001 and (shadow[..., :3] == 0.0).all()
    # The control: the answer that there is no shadow.
    assert alpha.mean() > 0.06 and alpha[shadows.visible].mean() > 3.0 * error[shadows.visible].mean()


def test_light_is_found(lights: Case) -> None:
    nothing, truth = (composite([Layer(lights.background), *more], SIDE, SIDE) for more in ((), (Layer(lights.cast, mode="add"),)))
    shadow, light = shadow_layer(lights.background, lights.layer, lights.noisy(lights.together(lights.cast)), SMOOTH, THRESHOLD)
    added = light[..., :3] * light[..., 3:]
    error = (added - (truth - nothing)).abs()
    assert error.mean() <= 0.015 and error[lights.visible].mean() <= 0.007
    assert shadow[..., 3].mean() <= 0.001
    # The control: the answer that there is no light.
    assert (truth - nothing).mean() > 2.0 * error.mean() and (truth - nothing)[lights.visible].mean() > 3.0 * error[lights.visible].mean()


@pytest.mark.parametrize("seed", [301, 207])
def test_nothing_is_found_in_a_plain_composite(seed: int) -> None:
    case = made("normal", seed)
    found = shadow_layer(case.background, case.layer, case.noisy(case.together()), SMOOTH, THRESHOLD)
    for what in found:
        assert what[..., 3].mean() <= 0.01 and what[..., 3].mean(dim=(1, 2)).max() <= 0.01
    # The control: without threshold and smoothing the noise is found.
    for what in shadow_layer(case.background, case.layer, case.noisy(case.together()), 0.0, 0.0):
        assert what[..., 3].mean() > 0.03


@pytest.mark.parametrize("what", ["shadows", "lights"])
def test_the_layers_give_the_blended_picture_back(what: str, request: pytest.FixtureRequest) -> None:
    case = request.getfixturevalue(what)
    truth = case.together(case.cast)
    shadow, light = shadow_layer(case.background, case.layer, case.noisy(truth), SMOOTH, THRESHOLD)
    layers = [Layer(case.background), Layer(shadow), Layer(light, mode="add"), Layer(case.layer)]
    assert psnr(composite(layers, SIDE, SIDE), truth) > 40.0
    assert psnr(case.together(), truth) < 32.0


def test_light_on_a_bright_background_is_not_cut_off() -> None:
    """The sum of colours ends at 1 before alpha mixes it: light of a bright colour and little alpha would be lost there."""
    background = torch.full((1, 24, 24, 3), 0.8)
    blended = background + torch.tensor([0.15, 0.08, 0.0])
    _, light = shadow_layer(background, torch.zeros(1, 24, 24, 4), blended, SMOOTH, THRESHOLD)
    assert torch.allclose(composite([Layer(background), Layer(light, mode="add")], 24, 24), blended, atol=2e-3)
    naive = torch.cat((torch.tensor([1.0, 8 / 15, 0.0]).expand(1, 24, 24, 3), torch.full((1, 24, 24, 1), 0.15)), dim=-1)
    assert composite([Layer(background), Layer(naive, mode="add")], 24, 24)[0, 0, 0, 0] < 0.85


def test_a_shadow_leads_under_the_object() -> None:
    layer = torch.zeros(1, 64, 64, 4)
    layer[:, 16:48, 16:48, 3] = 1.0
    background = torch.full((1, 64, 64, 3), 0.6)
    blended = background.clone()
    blended[:, :, 20:44] = 0.3
    blended[:, 16:48, 16:48] = 0.0
    alpha = shadow_layer(background, layer, blended, SMOOTH, THRESHOLD)[0][0, ..., 3]
    assert alpha[32, 32] > 0.3 and alpha[16:48, 32].min() > 0.3 and alpha[:, :8].max() == 0.0
    assert alpha[8, 32] == pytest.approx(0.5, abs=0.01)
    assert alpha[32].diff().abs().max() < 0.2  # no edge where the object begins


def test_where_nothing_can_be_seen_of_the_background_nothing_is_found() -> None:
    background, blended = torch.rand(1, 16, 16, 3), torch.rand(1, 16, 16, 3)
    for alpha in (1.0, 0.95):
        for found in shadow_layer(background, torch.full((1, 16, 16, 4), alpha), blended, SMOOTH, THRESHOLD):
            assert (found[..., 3] == 0.0).all()


def test_black_stays_black() -> None:
    """A shadow on black is no shadow, and dividing by it gives no number."""
    black, noise = torch.zeros(1, 32, 32, 3), 0.004 * torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    for background, blended in ((black, black), (black, noise), (noise, black)):
        for found in shadow_layer(background, torch.zeros(1, 32, 32, 4), blended, SMOOTH, THRESHOLD):
            assert found.isfinite().all() and found[..., 3].max() <= 0.04


@pytest.mark.parametrize("fit", FITS)
def test_pictures_of_other_sizes_are_brought_to_the_layers(shadows: Case, fit: str) -> None:
    """As those that a model was given: a photo of other proportions, and what was generated from it."""
    photo = fit_to(shadows.background[:4].movedim(-1, 1), 192, 300, "stretch").movedim(1, -1)
    seen = fit_to(photo.movedim(-1, 1), SIDE, SIDE, fit, fill=0.5).movedim(1, -1)
    layer = shadows.layer[:4]
    blended = composite([Layer(seen), Layer(shadows.cast[:4]), Layer(layer)], SIDE, SIDE)
    expected = shadow_layer(seen, layer, blended, SMOOTH, THRESHOLD)
    found = shadow_layer(photo, layer, blended, SMOOTH, THRESHOLD, fit)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    if fit == CROP:
        assert torch.equal(shadow_layer(photo, layer, blended)[0], expected[0])
    else:
        assert not torch.allclose(shadow_layer(photo, layer, blended)[0], expected[0], atol=0.1)


@pytest.mark.parametrize("counts", [(1, 1, 3), (1, 3, 1), (3, 1, 1), (3, 1, 3), (3, 3, 3)])
def test_single_pictures_go_with_batches(shadows: Case, counts: tuple[int, int, int]) -> None:
    blended = shadows.together(shadows.cast)
    given = [picture[:count].clone() for picture, count in zip((shadows.background, shadows.layer, blended), counts, strict=True)]
    kept = [picture.clone() for picture in given]
    found = shadow_layer(given[0], given[1], given[2], SMOOTH, THRESHOLD)
    for row in range(3):
        one = shadow_layer(*(picture[min(row, len(picture) - 1)][None] for picture in given), smooth=SMOOTH, threshold=THRESHOLD)
        for many, single in zip(found, one, strict=True):
            assert many.shape == (3, SIDE, SIDE, 4) and torch.allclose(many[row], single[0], atol=1e-5)
    assert all(torch.equal(*pair) for pair in zip(given, kept, strict=True))


def test_batches_that_do_not_go_together() -> None:
    with pytest.raises(DiaphaneError, match="batches of 1 and 2 and 3 pictures"):
        shadow_layer(torch.zeros(2, 8, 8, 3), torch.zeros(1, 8, 8, 4), torch.zeros(3, 8, 8, 3), SMOOTH, THRESHOLD)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(shadows: Case, dtype: torch.dtype) -> None:
    given = [picture[:2].to(dtype) for picture in (shadows.background, shadows.layer, shadows.together(shadows.cast))]
    exact = shadow_layer(*(picture.float() for picture in given), smooth=SMOOTH, threshold=THRESHOLD)
    for found, expected in zip(shadow_layer(*given, smooth=SMOOTH, threshold=THRESHOLD), exact, strict=True):
        assert found.dtype == torch.float32 and torch.equal(found, expected)
