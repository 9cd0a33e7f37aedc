"""The help page of every node opens in the frontend's own panel, with its picture and every heading."""

# pyright: reportMissingImports=false
from __future__ import annotations

import re
from pathlib import Path

import pytest

from dev.frontend import Frontend
from tests.browser.conftest import FRONTENDS

pytestmark = pytest.mark.browser

HELP = Path(__file__).resolve().parents[2] / "web" / "docs"
EMPTY = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": [], "config": {}, "extra": {}, "version": 0.4}


@FRONTENDS
def test_every_page_opens_from_its_node(frontend: Frontend) -> None:
    for path in sorted(HELP.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        title, *headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        frontend.load(EMPTY)
        frontend.page.evaluate(
            """type => {
                const node = LiteGraph.createNode(type)
                app.rootGraphInternal.add(node)
                app.canvas.selectItems([node])
            }""",
            path.stem,
        )
        frontend.settle()
        frontend.page.locator("[data-testid=info-button]").click()
        shown = frontend.page.locator(".node-help-content")
        shown.get_by_role("heading", name=title, exact=True).first.wait_for()
        text = shown.inner_text()
        assert [heading for heading in headings if heading not in text] == [], path.name
        frontend.page.wait_for_function("() => [...document.querySelectorAll('.node-help-content img')].every(image => image.complete)")
        widths = frontend.page.evaluate("() => [...document.querySelectorAll('.node-help-content img')].map(image => image.naturalWidth)")
        assert len(widths) == page.count("](pictures/") and all(widths), path.name
