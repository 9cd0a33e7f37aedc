"""The real frontend shows every bundled workflow, saves it unchanged, gives the prompt that tests/prompts has of it, and runs it."""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dev import bundled, export_prompts
from dev.frontend import Frontend, FrontendError
from dev.prompts import set_widgets
from dev.server import ComfyServer
from dev.stand_ins.swap import swap_prompt
from tests.browser.conftest import FRONTENDS

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = pytest.mark.browser

Json = dict[str, Any]

WIDTH, HEIGHT = 192, 128
SDXL = bundled.TRANSPARENT["SDXL"]
# One of each family of nodes; the others are run by `make test-full`.
QUICK = {SDXL, "42 Foreground, background and both (SD1.5)"}
PROMPT_ROUTE = "**/api/prompt"
MESSAGE = "start and end have to be between 0 and 1, start not after end; got start 0.8 and end 0.2."


@pytest.fixture(scope="module", autouse=True)
def _models(server: ComfyServer) -> Iterator[None]:
    new = bundled.name_models(server.base_directory / "models")
    yield
    for path in new:  # other modules have the same server, and models that are missing on it
        path.unlink()


@FRONTENDS
@pytest.mark.parametrize("name", bundled.names())
def test_loads_and_saves_unchanged(frontend: Frontend, renderer: str, name: str) -> None:
    workflow = bundled.read(name)
    before = len(frontend.console_errors)
    frontend.load(workflow, name)
    assert frontend.missing_nodes() == []
    assert frontend.console_errors[before:] == []
    # Vue nodes grow to what is in them.
    ignored = ("size",) if renderer == "vue" else ()
    assert _kept(frontend.saved(), ignored) == _kept(workflow, ignored)
    assert renderer == "vue" or _overlaps(frontend) == []


@FRONTENDS
@pytest.mark.parametrize("name", export_prompts.sources())
def test_exported_prompt_is_up_to_date(frontend: Frontend, name: str) -> None:
    given = export_prompts.export(frontend, export_prompts.sources()[name])
    assert given == bundled.prompt(name), f"tests/prompts/{name}.json is stale: run `make prompts`."


@FRONTENDS
@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in bundled.names()])
def test_runs_by_the_run_button_and_shows_its_pictures(frontend: Frontend, tmp_path: Path, name: str) -> None:
    workflow = bundled.read(name)
    run_small(frontend, workflow, name)
    pictures = frontend.pictures()
    shown = {str(node["id"]) for node in workflow["nodes"] if node["type"] in ("SaveImage", "DiaphanePreview")}
    assert shown <= set(pictures), f"no picture at {sorted(shown - set(pictures))}"
    if name == SDXL:
        assert all(pictures[node_id] == [(WIDTH, HEIGHT)] for node_id in shown)
    # Colours of the checkerboard and of the picture, not of an empty canvas.
    assert len(frontend.screenshot(tmp_path / "run.png").read_bytes()) > 50_000


@FRONTENDS
def test_an_error_is_shown_and_the_next_run_works(frontend: Frontend) -> None:
    workflow = bundled.read(SDXL)
    [patch] = [node for node in workflow["nodes"] if node["type"] == "DiaphaneTransparent"]
    right = patch["widgets_values"]
    patch["widgets_values"] = [right[0], right[1], 0.8, 0.2, *right[4:]]
    with pytest.raises(FrontendError, match="start 0.8 and end 0.2"):
        run_small(frontend, workflow, SDXL)
    frontend.page.locator("[data-testid=error-overlay]").wait_for()
    frontend.page.locator("[data-testid=error-overlay-see-errors]").click()
    frontend.page.get_by_text(MESSAGE).first.wait_for()

    patch["widgets_values"] = right
    run_small(frontend, workflow, SDXL)
    assert frontend.page.locator("[data-testid=error-overlay]:visible").count() == 0


def run_small(frontend: Frontend, workflow: Json, name: str) -> None:
    """Opens a workflow and presses Run. What the frontend sends arrives with stand-ins, for a small picture and few steps."""

    def swap(route: Route) -> None:
        if route.request.method != "POST":
            return route.continue_()
        sent = json.loads(route.request.post_data or "")
        prompt = swap_prompt(sent["prompt"], bundled.family(name))
        set_widgets(prompt, width=WIDTH, height=HEIGHT, steps=2)
        return route.continue_(post_data=json.dumps({**sent, "prompt": prompt}))

    frontend.load(workflow, name)
    frontend.page.route(PROMPT_ROUTE, swap)
    try:
        frontend.queue()
    finally:
        frontend.page.unroute(PROMPT_ROUTE, swap)


def _kept(workflow: Json, ignored: tuple[str, ...]) -> Json:
    """What makes up a workflow, without the view, the versions that wrote it, and which previews a subgraph happened to show.

    Newer frontends write the values of widgets by name as well, no list of them where there are none, and the links in another order.
    """
    nodes = [{"widgets_values": [], **node, "properties": _lasting(node["properties"])} for node in workflow["nodes"]]
    for node in nodes:
        for key in ("widgets_values_named", *ignored):
            node.pop(key, None)
    kept = {"nodes": nodes, "links": sorted(workflow["links"]), "groups": workflow["groups"], "version": workflow["version"]}
    return kept | {key: workflow["extra"].get(key) for key in ("linearData", "linearMode")}


def _lasting(properties: Json) -> Json:
    return {key: value for key, value in properties.items() if key not in ("ver", "cnr_id", "aux_id", "previewExposures")}


def _overlaps(frontend: Frontend) -> list[tuple[str, str]]:
    """Nodes that lie over one another."""
    boxes: dict[str, list[float]] = frontend.page.evaluate(
        "() => Object.fromEntries(app.rootGraphInternal.nodes.map(node => [`${node.title} ${node.id}`, [...node.getBounding()]]))"
    )
    return [(one, other) for one in boxes for other in boxes if one < other and _overlap(boxes[one], boxes[other])]


def _overlap(one: list[float], other: list[float]) -> bool:
    return all(one[axis] < other[axis] + other[axis + 2] and other[axis] < one[axis] + one[axis + 2] for axis in (0, 1))
