"""Every bundled workflow is in the frontend's template browser, and opens from there complete, with its models offered for download."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev import bundled, comfyui
from dev.frontend import Frontend
from tests.browser.conftest import FRONTENDS

pytestmark = [pytest.mark.browser, FRONTENDS]

CARD = "[data-testid='template-workflow-{}']"
ANY_CARD = "[data-testid^='template-workflow-']"


@pytest.fixture(autouse=True)
def _tidy(frontend: Frontend) -> Iterator[None]:
    """No panel or message of an earlier test lies over the templates."""
    frontend.load({"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": [], "config": {}, "extra": {}, "version": 0.4})
    yield
    frontend.page.keyboard.press("Escape")


def browse(frontend: Frontend) -> None:
    """Opens the templates of this pack."""
    frontend.page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    frontend.page.locator("[role=dialog]").get_by_text(comfyui.PACK, exact=True).first.click()
    cards = frontend.page.locator(ANY_CARD)
    cards.first.wait_for()
    for _ in range(50):  # more of them come when the last one is seen
        if cards.count() >= len(bundled.names()):
            return
        cards.last.scroll_into_view_if_needed()
        frontend.page.wait_for_timeout(100)


def test_all_are_there(frontend: Frontend) -> None:
    browse(frontend)
    prefix = CARD.format("").removesuffix("']").removeprefix("[data-testid='")
    shown = frontend.page.evaluate(
        "prefix => [...document.querySelectorAll(`[data-testid^=${prefix}]`)].map(card => card.dataset.testid.slice(prefix.length))",
        prefix,
    )
    assert sorted(set(shown) - {"s-content"}) == bundled.names()


@pytest.mark.parametrize("name", bundled.names())
def test_opens_complete(frontend: Frontend, name: str) -> None:
    before = len(frontend.console_errors)
    browse(frontend)
    # As one event: the cards are made anew when the list is filtered, and a press and a release on two elements are no click.
    frontend.page.locator(CARD.format(name)).dispatch_event("click")
    frontend.page.wait_for_function("name => app.extensionManager.workflow.activeWorkflow?.filename.startsWith(name)", arg=name)
    frontend.settle()
    assert frontend.missing_nodes() == []
    assert frontend.console_errors[before:] == []
    workflow = bundled.read(name)
    assert len(frontend.saved()["nodes"]) == len(workflow["nodes"])

    # Nothing is wrong with it but that the models are not on this machine.
    details = frontend.page.get_by_role("button", name="View details")
    if bundled.is_mini(name):
        assert details.count() == 0
        return
    details.click()
    panel = frontend.page.get_by_text("Missing Models", exact=True).locator("xpath=ancestor::*[contains(., 'Download')][1]")
    text = panel.inner_text()
    for model in (model for node in workflow["nodes"] for model in node["properties"].get("models", [])):
        assert model["name"] in text and model["directory"] in text
    assert frontend.page.get_by_text("Missing Node", exact=False).count() == 0
