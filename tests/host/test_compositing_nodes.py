"""The compositing nodes as ComfyUI runs them: what their sockets carry, and upscaling without fringes."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

NodeClasses = dict[str, Any]


def picture(height: int, width: int, seed: int = 0, batch: int = 1) -> Tensor:
    return torch.rand(batch, height, width, 4, generator=torch.Generator().manual_seed(seed))


def run(node_classes: NodeClasses, node: str, /, **inputs: Any) -> Any:
    return node_classes[f"Diaphane{node}"].execute(**inputs).result


def placed(node_classes: NodeClasses, image: Tensor, **settings: Any) -> Any:
    defaults = {"name": "", "mode": "normal", "opacity": 1.0, "x": 0, "y": 0, "scale": 1.0, "rotation": 0.0}
    [layer] = run(node_classes, "PlaceLayer", image=image, **{**defaults, **settings})
    return layer


def test_pictures_and_layers_may_be_mixed(node_classes: NodeClasses) -> None:
    background, above, top = picture(24, 32)[..., :3], picture(24, 32, 1), picture(8, 8, 2)
    place = {"x": 20, "y": -2, "opacity": 0.5, "mode": "multiply", "name": "top"}
    grown = {"layer1": placed(node_classes, top, **place), "layer0": above}
    image, layers = run(node_classes, "Composite", background=background, layers=grown)
    assert image.shape == (1, 24, 32, 3)
    assert [layer.name for layer in layers.layers] == ["", "", "top"]
    step, lower = run(node_classes, "Composite", background=background, layers={"layer0": above})
    again, all_layers = run(node_classes, "Composite", background=lower, layers={"layer0": grown["layer1"]})
    assert torch.equal(again, image) and len(all_layers.layers) == 3
    from_picture, _ = run(node_classes, "Composite", background=step, layers={"layer0": grown["layer1"]})
    assert torch.equal(from_picture, image)


def test_layers_of_comfyui_go_wherever_layers_go(node_classes: NodeClasses) -> None:
    glass = placed(node_classes, picture(8, 8, 2), x=3, y=4, opacity=0.5, mode="screen", name="glass")
    ground = picture(24, 32)[..., :3]
    expected, stack = run(node_classes, "Composite", layers={"layer0": ground, "layer1": glass})
    [[document]] = run(node_classes, "ToCore", layers={"layer0": stack})
    assert type(document) is dict and document["canvas"] == (32, 24) and document["layers"][1]["blend_mode"] == "screen"
    # As Add Layer does it.
    document = {"version": 1, "layers": [*document["layers"], {"image": picture(4, 4), "type": "raster", "x": 30, "y": 1, "z_index": 0}]}
    [back] = run(node_classes, "FromCore", layers=document)
    assert [layer.name for layer in back.layers] == ["", "glass", ""] and (back.width, back.height) == (34, 24)
    for layers in ({"layer0": document}, {"layer0": back}):
        image, _ = run(node_classes, "Composite", layers=layers)
        assert torch.equal(image[:, :24, :30, :3], expected[:, :, :30]) and image.shape == (1, 24, 34, 4)
    image, _ = run(node_classes, "Composite", background=document, layers={"layer0": picture(1, 1)})
    assert image.shape == (1, 24, 34, 4)


def test_each_picture_of_a_batch_is_a_document(node_classes: NodeClasses) -> None:
    layers = {"layer0": picture(6, 7)[..., :3], "layer1": picture(6, 7, batch=3)}
    for number, rows in ((0, range(3)), (2, [1])):
        [documents] = run(node_classes, "ToCore", layers=layers, picture=number)
        assert [document["layers"][1]["image"][0].tolist() for document in documents] == [layers["layer1"][row].tolist() for row in rows]
    with pytest.raises(Exception, match="no picture 4 in a batch of 3"):
        run(node_classes, "ToCore", layers=layers, picture=4)


def test_the_editors_blending_is_another(node_classes: NodeClasses) -> None:
    layers = {"layer0": torch.ones(1, 4, 4, 3), "layer1": placed(node_classes, torch.zeros(1, 4, 4, 3), opacity=0.5)}
    grey, editor = (run(node_classes, "Composite", layers=layers, blending=how)[0] for how in ("as Photoshop", "as ComfyUI's editor"))
    assert torch.allclose(grey, torch.tensor(0.5)) and torch.allclose(editor, torch.tensor(0.735), atol=1e-3)


def test_ten_layers_come_in_the_order_of_their_numbers(node_classes: NodeClasses) -> None:
    layers = {f"layer{index}": torch.full((1, 4, 4, 3), index / 20) for index in reversed(range(12))}
    image, stack = run(node_classes, "Composite", layers=layers)
    assert len(stack.layers) == 12 and torch.equal(image, layers["layer11"])


@pytest.mark.parametrize("background_channels", [3, 4])
def test_outside_the_area_and_outside_alpha_nothing_changes(node_classes: NodeClasses, background_channels: int) -> None:
    background = picture(24, 32)[..., :background_channels]
    area = torch.zeros(1, 24, 32)
    area[:, 4:12, 6:20] = 1.0
    for layer in (picture(24, 32, 1)[..., :3], placed(node_classes, picture(30, 40, 2), x=-5, y=-4, rotation=10.0)):
        image, stack = run(node_classes, "Composite", background=background, layers={"layer0": layer}, area=area)
        changed = (image != background).any(dim=-1)
        assert changed.any() and not (changed & (area == 0)).any()
        again, _ = run(node_classes, "Composite", background=stack, layers={"layer0": torch.zeros(1, 2, 2, 4)})
        assert torch.equal(again, image)


@pytest.mark.parametrize("position", [{"x": 500}, {"x": -500}, {"y": 500}, {"x": -16384, "y": 16384}])
def test_an_area_may_meet_a_layer_that_lies_off_the_canvas(node_classes: NodeClasses, position: dict[str, int]) -> None:
    background = picture(24, 32)[..., :3]
    layer = placed(node_classes, picture(8, 8, 1), **position)
    image, _ = run(node_classes, "Composite", background=background, layers={"layer0": layer}, area=torch.ones(1, 24, 32))
    assert torch.equal(image, background)


def test_an_area_of_several_masks_gives_as_many_pictures(node_classes: NodeClasses) -> None:
    areas = torch.zeros(3, 24, 32)
    areas[1, :5], areas[2] = 1.0, 2.0  # some nodes give more than 1
    background, layer = picture(24, 32)[..., :3], picture(24, 32, 1)
    image, _ = run(node_classes, "Composite", background=background, layers={"layer0": layer}, area=areas)
    whole, _ = run(node_classes, "Composite", background=background, layers={"layer0": layer})
    assert torch.equal(image[:1], background) and torch.equal(image[2:], whole)
    assert torch.equal(image[1:2, :5], whole[:, :5]) and torch.equal(image[1:2, 5:], background[:, 5:])


def test_says_what_is_wrong(node_classes: NodeClasses, pack: ModuleType) -> None:
    error = sys.modules[f"{pack.__name__}.lib_layerdiffuse.errors"].DiaphaneError
    with pytest.raises(error, match="no layers to put together. Connect"):
        run(node_classes, "Composite", layers={})
    with pytest.raises(error, match="batches of 2 and 3 pictures"):
        run(node_classes, "Composite", layers={"layer0": picture(4, 4, batch=2), "layer1": picture(4, 4, batch=3)})
    for empty in (picture(4, 4, batch=0), picture(0, 4), picture(4, 4, batch=0)[..., :3]):
        with pytest.raises(error, match="Got an empty picture, .* Check the node before"):
            run(node_classes, "Composite", layers={"layer0": empty})
        with pytest.raises(error, match="Got an empty picture"):
            placed(node_classes, empty, scale=2.0)
    with pytest.raises(error, match="black 0.5 and white 0.5. Lower black or raise white"):
        repair(node_classes, picture(4, 4), black=0.5, white=0.5)


def repair(node_classes: NodeClasses, image: Tensor, **settings: Any) -> Any:
    defaults = {"defringe": 0, "black": 0.0, "white": 1.0, "gamma": 1.0, "trim": False, "margin": 0}
    return run(node_classes, "Repair", image=image, **{**defaults, **settings})


def test_what_repair_trims_can_be_put_back(node_classes: NodeClasses) -> None:
    rgba = torch.zeros(1, 40, 50, 4)
    rgba[:, 10:20, 15:40] = picture(10, 25)
    trimmed, x, y = repair(node_classes, rgba, trim=True)
    assert (trimmed.shape[1:3], x, y) == ((10, 25), 15, 10)
    canvas = torch.zeros(1, 40, 50, 4)
    image, _ = run(node_classes, "Composite", background=canvas, layers={"layer0": placed(node_classes, trimmed, x=x, y=y)})
    assert torch.allclose(image * image[..., 3:], rgba * rgba[..., 3:], atol=1e-6)
    assert repair(node_classes, rgba)[1:] == (0, 0)


@pytest.mark.parametrize(("black", "size"), [(0.0, (2, 3)), (0.03, (2, 3)), (0.01, (40, 50))])
def test_repair_trims_haze_off_unless_black_says_what_haze_is(node_classes: NodeClasses, black: float, size: tuple[int, int]) -> None:
    """The mini models' pictures hold alpha of up to 5/255 all around the object, which nobody sees."""
    rgba = torch.full((1, 40, 50, 4), 5 / 255)
    rgba[:, 7:9, 11:14, 3] = 0.5
    assert repair(node_classes, rgba, black=black, trim=True)[0].shape[1:3] == size


def test_repair_keeps_what_lies_in_an_area(node_classes: NodeClasses) -> None:
    rgba = torch.full((2, 40, 50, 4), 0.8)
    area = torch.zeros(1, 20, 25)
    area[:, 5:10, 5:15] = 1.0
    area[:, 12:15, 5:15] = 0.5
    settings = {"black": 0.1, "white": 0.9}
    whole, kept = repair(node_classes, rgba, **settings)[0], repair(node_classes, rgba, area=area, **settings)[0]
    inside, half = kept[:, 12:18, 12:28], kept[:, 26:28, 12:28]
    assert torch.equal(inside, whole[:, 12:18, 12:28]) and torch.equal(kept[..., :3], whole[..., :3])
    assert torch.allclose(half[..., 3], whole[:, 26:28, 12:28, 3] / 2)  # the levels, which come before, do not harden its edge
    assert (kept[:, :9, :, 3] == 0.0).all() and (kept[:, 31:, :, 3] == 0.0).all() and (whole[..., 3] > 0.8).all()
    trimmed, x, y = repair(node_classes, rgba, area=area, trim=True)
    assert (x, y) == (9, 9) and trimmed.shape[1:3] == (22, 22)
    assert repair(node_classes, rgba, trim=True)[1:] == (0, 0)  # the control
    for everywhere in (torch.ones(1, 3, 4), torch.full((2, 40, 50), 2.0)):  # some nodes give more than 1
        assert torch.equal(repair(node_classes, rgba, area=everywhere, **settings)[0], whole)
    assert repair(node_classes, rgba[:1], area=torch.ones(3, 20, 25))[0].shape == (3, 40, 50, 4)


def test_saved_workflows_keep_the_inputs_of_repair_alpha_in_their_order(node_classes: NodeClasses) -> None:
    inputs = [item.id for item in node_classes["DiaphaneRepair"].define_schema().inputs]
    assert inputs == ["image", "mask", "defringe", "black", "white", "gamma", "trim", "margin", "area"]


# --- shadows ----------------------------------------------------------------------------------------------------------------------------


def test_a_shadow_is_a_layer_between_photo_and_object(node_classes: NodeClasses) -> None:
    """As an artist wires it: Place Layer with mode add for the light, whole pictures, all in Composite Layers."""
    photo = torch.full((1, 64, 64, 3), 0.5)
    cat = torch.zeros(1, 64, 64, 4)
    cat[:, 20:40, 20:40] = torch.tensor([0.9, 0.5, 0.1, 1.0])
    blended = photo.clone()
    blended[:, 36:56, 16:44] = 0.25
    blended[:, 4:14, 16:44] = torch.tensor([0.8, 0.7, 0.5])
    blended[:, 20:40, 20:40] = cat[:, 20:40, 20:40, :3]
    mask = 1.0 - cat[..., 3]
    shadow, light = run(
        node_classes, "Shadow", background=photo, layer=cat[..., :3], blended=blended, smooth=1.0, threshold=0.03, mask=mask
    )
    again = run(node_classes, "Shadow", background=photo, layer=cat, blended=blended, smooth=1.0, threshold=0.03)
    assert torch.equal(shadow, again[0]) and torch.equal(light, again[1])
    layers = {"layer0": shadow, "layer1": placed(node_classes, light, mode="add", moves="picture"), "layer2": cat}
    image, _ = run(node_classes, "Composite", background=photo, layers=layers)
    plain, _ = run(node_classes, "Composite", background=photo, layers={"layer0": cat})
    assert (image - blended).abs().mean() < 0.006 < 0.03 < (plain - blended).abs().mean()
    assert torch.allclose(image[:, 46, 30], blended[:, 46, 30], atol=0.01) and torch.allclose(image[:, 9, 30], blended[:, 9, 30], atol=0.01)


def test_an_opaque_layer_has_no_shadow_and_a_note(node_classes: NodeClasses) -> None:
    settings = {"background": picture(32, 32), "blended": picture(32, 32, 1), "smooth": 3.0, "threshold": 0.03}
    found = node_classes["DiaphaneShadow"].execute(layer=picture(32, 32, 2)[..., :3], **settings)
    assert "Nothing in this picture is transparent" in found.ui["text"][0] and all((x[..., 3] == 0.0).all() for x in found.result)
    assert node_classes["DiaphaneShadow"].execute(layer=picture(32, 32, 2), **settings).ui["text"] == []


# --- upscaling --------------------------------------------------------------------------------------------------------------------------


class Enlarger(nn.Module):
    """Stands in for an upscaling model: enlarges smoothly, as bicubic scaling does."""

    def __init__(self, scale: int):
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale, mode="bicubic", align_corners=False)


def upscale_model(scale: int, with_patcher: bool = True) -> Any:
    """What Load Upscale Model gives: spandrel's descriptor, in today's host with a patcher."""
    from comfy.model_patcher import CoreModelPatcher

    network = Enlarger(scale)
    cpu = torch.device("cpu")
    patcher = {"patcher": CoreModelPatcher(network, load_device=cpu, offload_device=cpu)} if with_patcher else {}

    class Descriptor(SimpleNamespace):
        def __call__(self, x: Tensor) -> Tensor:
            return self.model(x)

        def to(self, device: torch.device | str) -> Any:
            return self

    return Descriptor(model=network, scale=scale, **patcher)


def grid(side: int) -> tuple[Tensor, Tensor]:
    line = torch.linspace(-1, 1, side)
    return line[:, None].expand(side, side), line.expand(side, side)


def soft_disc() -> Tensor:
    y, x = grid(96)
    return ((0.7 - (x * x + y * y).sqrt()) / 0.15 + 0.5).clamp(0.0, 1.0)


def hair() -> Tensor:
    y, x = grid(96)
    return torch.stack([(1.3 - (y - a * x - b).abs() * 40).clamp(0.0, 1.0) for a, b in ((0.3, 0.1), (-0.8, 0.2), (2.5, -0.4))]).amax(0)


def glass() -> Tensor:
    y, x = grid(96)
    radius = (x * x + y * y).sqrt()
    return torch.where(radius < 0.8, 0.15 + 0.6 * (radius / 0.8) ** 6, 0.0) * ((0.8 - radius) / 0.04).clamp(0.0, 1.0)


@pytest.mark.parametrize("alpha", [soft_disc, hair, glass])
@pytest.mark.parametrize("scale", [2, 4])
def test_upscaling_shows_no_fringe(node_classes: NodeClasses, alpha: Any, scale: int) -> None:
    opacity = alpha()
    y, x = grid(96)
    colour = torch.stack((0.6 + 0.3 * x, 0.5 + 0.3 * y, 0.4 + 0.2 * x * y), dim=-1)
    # Where nothing is to be seen stands the worst colour, as in many cut-outs.
    rgb = torch.where(opacity[..., None] > 0, colour, torch.tensor((0.0, 1.0, 1.0)))
    [rgba] = run(node_classes, "Upscale", upscale_model=upscale_model(scale), image=torch.cat((rgb, opacity[..., None]), dim=-1)[None])
    assert rgba.shape == (1, 96 * scale, 96 * scale, 4)
    for backdrop in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 0.0, 0.0)):
        behind = torch.tensor(backdrop)
        seen = colour * opacity[..., None] + behind * (1 - opacity[..., None])
        truth = F.interpolate(seen.movedim(-1, 0)[None], scale_factor=scale, mode="bicubic").movedim(1, -1).clamp(0.0, 1.0)
        ours = rgba[..., :3] * rgba[..., 3:] + behind * (1 - rgba[..., 3:])
        assert (ours - truth).abs().flatten().quantile(0.99) <= 2 / 255


def test_upscaling_keeps_what_is_wholly_there_or_not_and_works_in_tiles(node_classes: NodeClasses) -> None:
    image = torch.zeros(2, 700, 520, 4)
    image[:, 100:600, 100:400] = torch.tensor((0.2, 0.4, 0.6, 1.0))
    for with_patcher in (True, False):
        [rgba] = run(node_classes, "Upscale", upscale_model=upscale_model(2, with_patcher), image=image)
        assert rgba.shape == (2, 1400, 1040, 4)
        assert (rgba[:, :190, :, 3] == 0).all() and (rgba[:, 210:1190, 210:790, 3] == 1).all()
        assert (rgba[..., :3] - torch.tensor((0.2, 0.4, 0.6))).abs().max() < 0.02


def test_upscaling_fetches_the_weights_that_loading_leaves_behind(node_classes: NodeClasses, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as memory

    model = upscale_model(2)
    enlarge = model.model.forward
    # Another device, as far as one without a graphics card has one: nothing can be computed with a weight that is still there.
    model.model.weight = nn.Parameter(torch.empty(1, device="meta"))
    model.model.forward = lambda x: enlarge(x) * model.model.weight

    class LeftBehind(type(model)):
        def to(self, device: torch.device | str) -> Any:
            self.model.weight = nn.Parameter(torch.ones(1, device=device))
            return self

    loads: list[dict[str, Any]] = []
    monkeypatch.setattr(memory, "load_models_gpu", lambda models, **settings: loads.append(settings))
    with torch.inference_mode():
        [rgba] = run(node_classes, "Upscale", upscale_model=LeftBehind(**vars(model)), image=torch.full((1, 16, 16, 4), 0.5))
    assert torch.allclose(rgba, torch.full((1, 32, 32, 4), 0.5), atol=1e-5)
    assert loads and all(settings["force_full_load"] for settings in loads)
