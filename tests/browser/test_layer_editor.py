"""ComfyUI's layer editor opens what Save Layers shows, and shows what Composite Layers blends as the editor does."""

# pyright: reportMissingImports=false
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dev.frontend import Frontend
from dev.prompts import Json, node, save
from dev.server import ComfyServer
from tests.browser.conftest import NEWEST

pytestmark = [pytest.mark.browser, pytest.mark.parametrize("version", [NEWEST], indirect=True, scope="module")]

SIZE = (200, 150)
NAMES = ["ground", "fox, red", "glass"]
CANVAS = "[data-testid=layer-editor-main-canvas]"


def solid(width: int, height: int, colour: int) -> Json:
    return node("EmptyImage", width=width, height=height, batch_size=1, color=colour)


def place(image: str, name: str, **settings: float) -> Json:
    inputs = {"mode": "normal", "opacity": 1.0, "x": 0, "y": 0, "scale": 1.0, "rotation": 0.0}
    return node("DiaphanePlaceLayer", image=[image, 0], name=name, **{**inputs, **settings})


PROMPT: Json = {
    "1": solid(*SIZE, 0x336699),
    "2": solid(60, 40, 0xFF8800),
    "3": solid(50, 50, 0x00CC44),
    "4": place("1", NAMES[0]),
    "5": place("2", NAMES[1], x=20, y=90),
    "6": place("3", NAMES[2], x=120, y=20, opacity=0.5, rotation=30.0),
    "7": node("DiaphaneComposite", blending="as ComfyUI's editor", **{f"layers.layer{index}": [str(index + 4), 0] for index in range(3)}),
    "8": save(["7", 0], "blended"),
    "9": node("DiaphaneSaveLayers", **{"layers.layer0": ["7", 1]}, filename_prefix="set", format="PSD", names=""),
}


def test_the_editor_has_every_layer_in_its_place(frontend: Frontend, server: ComfyServer) -> None:
    page = frontend.page
    page.evaluate("prompt => app.loadApiJson(prompt, 'layers')", PROMPT)
    frontend.queue()
    page.evaluate(
        """() => {
            app.canvas.select(app.rootGraph.getNodeById(9))
            return app.extensionManager.command.execute('Comfy.LayerEditor.OpenLayerEditor')
        }"""
    )
    rows = page.locator("[data-testid=layer-panel-row]")
    rows.nth(len(NAMES) - 1).wait_for()
    assert [row.splitlines()[0] for row in rows.all_inner_texts()] == NAMES[::-1]  # the topmost first
    page.wait_for_function(
        f"([width, height]) => {{ const c = document.querySelector('{CANVAS}'); return c.width == width && c.height == height }}",
        arg=list(SIZE),
    )
    frontend.settle()
    pixels = page.evaluate(f"() => [...document.querySelector('{CANVAS}').getContext('2d').getImageData(0, 0, {SIZE[0]}, {SIZE[1]}).data]")
    seen = np.array(pixels).reshape(*SIZE[::-1], 4)
    with Image.open(next((server.base_directory / "output").glob("blended*"))) as image:
        expected = np.array(image.convert("RGBA")).astype(int)
    assert np.abs(seen - expected).max() <= 3  # Save Image rounds down, and the editor computes in half precision
    assert len(np.unique(seen.reshape(-1, 4), axis=0)) >= 3
    page.keyboard.press("Escape")
    assert not frontend.console_errors
