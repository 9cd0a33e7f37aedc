"""The real node search finds our nodes by what artists type, under the names of their language, and what it adds can be wired."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from dev import locales
from dev.frontend import Frontend
from dev.server import ComfyServer

pytestmark = pytest.mark.browser

EMPTY = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": [], "config": {}, "extra": {}, "version": 0.4}
RESULTS = "[data-testid=result-item]:visible"
# Where every frontend has bare canvas.
SPOT = (800, 500)

# What is typed, what comes first, and what else has to be there. None: others may come before ours.
FOUND = {
    "transparent": (
        "Transparent VAE",
        {"LayerDiffuse Transparent", "Transparent VAE Decode", "Transparent VAE Encode", "Preview Transparent"},
    ),
    "RGBA": (None, {"Transparent VAE Decode", "Transparent VAE", "LayerDiffuse Transparent"}),
    "alpha": (None, {"Transparent VAE Decode", "Preview Transparent"}),
    "layerdiffuse": (None, {"LayerDiffuse Transparent", "LayerDiffuse Joint", "LayerDiffuse Blend", "LayerDiffuse Extract"}),
    "Layer Diffuse Apply": ("LayerDiffuse Transparent", set()),
    "Layer Diffuse Joint Apply": ("LayerDiffuse Joint", set()),
    "Layer Diffuse Cond Apply": ("LayerDiffuse Blend", set()),
    "Layer Diffuse Cond Joint Apply": ("LayerDiffuse Joint From Layer", set()),
    "Layer Diffuse Diff Apply": (None, {"LayerDiffuse Extract"}),  # "diff" is in every "diffuse"
    "Layer Diffuse Decode": ("Transparent VAE Decode", set()),
    "Layer Diffuse Decode (RGBA)": ("Transparent VAE Decode", set()),
    "Layer Diffuse Decode (Split)": ("Split Layers", set()),
}


@pytest.fixture(autouse=True)
def _empty_canvas(frontend: Frontend) -> Iterator[None]:
    frontend.load(EMPTY)
    yield
    frontend.page.keyboard.press("Escape")


def search(frontend: Frontend, text: str) -> list[str]:
    """Opens the search with a double click on the canvas, as artists do, and gives the names of what it finds for `text`."""
    box = frontend.page.locator("input[aria-controls=results-list]:visible")
    if not box.count():
        frontend.page.mouse.dblclick(*SPOT)
    box.fill(text)
    previous: list[str] | None = None
    for _ in range(20):  # it waits for the end of typing before it searches
        frontend.page.wait_for_timeout(400)
        names = [item.split("\n")[0] for item in frontend.page.locator(RESULTS).all_inner_texts()]
        if names == previous:
            return names
        previous = names
    raise AssertionError(f"The search for {text} does not come to rest: {previous}")


def test_finds_what_artists_mean(frontend: Frontend) -> None:
    for text, (first, others) in FOUND.items():
        names = search(frontend, text)
        assert first in (None, names[0]), f"{text}: {names}"
        assert others <= set(names), f"{text}: {names}"


def test_what_it_adds_can_be_wired(frontend: Frontend) -> None:
    assert search(frontend, "LayerDiffuse Transparent")[0] == "LayerDiffuse Transparent"
    frontend.page.keyboard.press("Enter")
    frontend.settle()
    frontend.page.mouse.click(*SPOT)
    frontend.settle()
    linked = frontend.page.evaluate(
        """() => {
            const [ours] = app.rootGraphInternal.nodes
            const loader = LiteGraph.createNode('StandInCheckpoint')
            app.rootGraphInternal.add(loader)
            loader.connect(0, ours, ours.findInputSlot('model'))
            return [ours.type, ours.getInputNode(0)?.type]
        }"""
    )
    assert linked == ["DiaphaneTransparent", "StandInCheckpoint"]
    prompt = frontend.prompt()
    [ours] = [node for node in prompt.values() if node["class_type"] == "DiaphaneTransparent"]
    assert ours["inputs"]["model"] in ([node_id, 0] for node_id in prompt)


def test_every_language_reaches_the_frontend(server: ComfyServer) -> None:
    served = server.get("/i18n")
    for language in (locales.ENGLISH, *locales.TRANSLATIONS):
        texts = json.loads((locales.LOCALES / language / locales.FILE).read_text(encoding="utf-8"))
        assert {node_id: served[language]["nodeDefs"].get(node_id) for node_id in texts} == texts


# In a page of its own: a frontend keeps its language.
def test_names_are_those_of_the_language(frontend: Frontend, server: ComfyServer) -> None:
    browser = frontend.page.context.browser
    assert browser is not None
    page = browser.new_page()
    try:
        page.route(
            "**/api/settings",
            lambda route: (
                route.fulfill(json={**frontend.settings, "Comfy.Locale": "ja"}) if route.request.method == "GET" else route.continue_()
            ),
        )
        page.goto(server.url)
        page.wait_for_function("() => window.app?.vueAppReady && app.rootGraphInternal && !document.querySelector('#splash-loader')")
        shown = page.evaluate(
            """() => {
                const node = LiteGraph.createNode('DiaphaneVAEDecode')
                app.rootGraphInternal.add(node)
                return [node.title, ...node.inputs.map(input => input.localized_name), ...node.outputs.map(output => output.localized_name)]
            }"""
        )
    finally:
        page.close()
    texts = dict(locales.languages())["ja"]["DiaphaneVAEDecode"]
    assert shown[0] == texts["display_name"]
    assert {texts["inputs"]["samples"]["name"], texts["inputs"]["vae"]["name"], texts["outputs"]["0"]["name"]} <= set(shown)
