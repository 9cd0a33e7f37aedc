"""A layered file goes from the artist's disk into Load Layers, whose note says what is in it."""

# pyright: reportMissingImports=false
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dev import bundled
from dev.frontend import Frontend
from tests.browser.conftest import FRONTENDS

pytestmark = [pytest.mark.browser, FRONTENDS]

PROMPT: dict[str, Any] = {
    "1": {"class_type": "DiaphaneLoadLayers", "inputs": {"file": bundled.DOCUMENT, "groups": "take apart", "pick": ""}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 1], "filename_prefix": "uploaded"}},
}
BUTTON = "app.graph.getNodeById(1).widgets.find(widget => widget.name == 'upload')"
SAID = "app.graph.getNodeById(1).widgets.find(widget => widget.name == '$$diaphane-notes')?.element.innerText"


def test_a_layered_file_is_uploaded_and_opened(frontend: Frontend, renderer: str, tmp_path: Path) -> None:
    frontend.page.evaluate("prompt => app.loadApiJson(prompt, 'upload')", PROMPT)
    before = frontend.prompt()["1"]["inputs"]
    assert before == PROMPT["1"]["inputs"]  # the button is neither saved nor sent
    path = bundled.draw_document(tmp_path / f"{renderer}.psd", 64, 48)
    with frontend.page.expect_file_chooser() as chooser:
        frontend.page.evaluate(f"() => {BUTTON}.callback()")
    chooser.value.set_files(path)
    frontend.page.wait_for_function("name => app.graph.getNodeById(1).widgets[0].value == name", arg=path.name)
    frontend.queue()
    frontend.settle(12)
    assert frontend.page.evaluate(f"() => {SAID}") == "2 layers, 64x48: ground, heart."
