"""What a node has to say stands under it from the end of a run to the next, and nowhere else: not in the workflow, not in the prompt."""

# pyright: reportMissingImports=false
from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from dev.frontend import Frontend
from tests.browser.conftest import FRONTENDS

OLDEST = "1.41.21"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.parametrize(
        ("version", "renderer"),
        [*FRONTENDS.args[1], pytest.param(OLDEST, "classic", id=OLDEST), pytest.param(OLDEST, "vue", marks=pytest.mark.full)],
        indirect=True,
        scope="module",
    ),
]

Json = dict[str, Any]

ADVICE = "The picture is 100% opaque.\nWhat helps: prompt a plain background; raise the weight of LayerDiffuse Transparent."

# The last node gets a list of two pictures, an opaque and a transparent one.
COLOURS = count()
SAYS, LIST, PREVIEW = "2", "8", "9"
PROMPT: Json = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    SAYS: {"class_type": "DiaphaneSays", "inputs": {"image": ["1", 0], "text": ADVICE}},
    "3": {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 64, "height": 64}},
    "4": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}},
    "5": {"class_type": "JoinImageWithAlpha", "inputs": {"image": [SAYS, 0], "alpha": ["3", 0]}},
    "6": {"class_type": "JoinImageWithAlpha", "inputs": {"image": [SAYS, 0], "alpha": ["4", 0]}},
    "7": {"class_type": "ImageBatch", "inputs": {"image1": ["5", 0], "image2": ["6", 0]}},
    LIST: {"class_type": "RebatchImages", "inputs": {"images": ["7", 0], "batch_size": 1}},
    PREVIEW: {"class_type": "DiaphanePreview", "inputs": {"image": [LIST, 0]}},
}
SHARES = (
    "100% opaque, 0% translucent, 0% transparent. Nothing in this picture is transparent. That is right for a background; for a cut-out, "
    "connect rgba of Transparent VAE Decode, or the mask of Load Image too.\n0% opaque, 0% translucent, 100% transparent."
)
SAID = {"DiaphaneSays": ADVICE, "DiaphanePreview": SHARES}

# The texts that are to be seen under the nodes of the graph that is open; whether they end inside the node; whether a word is broken.
SHOWN = """() => app.canvas.graph.nodes.flatMap(node => {
    const text = node.widgets?.find(widget => widget.name == '$$diaphane-notes')?.element.firstChild
    const place = text?.getBoundingClientRect()
    if (!place?.width) return []
    const [, bottom] = app.canvas.convertEventToCanvasOffset({ clientX: place.left, clientY: place.bottom })
    const frame = text.closest('[data-node-id]')?.getBoundingClientRect()
    const lines = [...text.textContent.matchAll(/\\S+/g)].map(({ index, 0: word }) => {
        const range = document.createRange()
        range.setStart(text.firstChild, index)
        range.setEnd(text.firstChild, index + word.length)
        return range.getClientRects().length
    })
    const fits = frame ? place.bottom <= frame.bottom : bottom <= node.pos[1] + node.size[1]
    return [[node.type, { text: text.innerText, fits, broken: Math.max(...lines) > 1 }]]
})"""


@pytest.fixture(autouse=True)
def _graph(frontend: Frontend) -> None:
    # Another colour for every test, so that none finds what an earlier one has left in the host's cache.
    colour = next(COLOURS)
    prompt = {**PROMPT, "1": {**PROMPT["1"], "inputs": {**PROMPT["1"]["inputs"], "color": colour}}}
    frontend.page.evaluate("prompt => app.loadApiJson(prompt, 'notes')", prompt)
    frontend.load(frontend.saved(), f"notes {colour}")  # by its name, frontends remember what a workflow has shown


def shown(frontend: Frontend) -> dict[str, str]:
    """The texts under the nodes that are open, by the nodes' types."""
    left, top, width, height = frontend.bounds()
    frontend.page.evaluate(
        "([scale, x, y]) => { app.canvas.ds.scale = scale; app.canvas.ds.offset = [x, y] }",
        [min(1400 / width, 800 / height), 100 - left, 100 - top],
    )
    frontend.settle(12)
    found: dict[str, Json] = dict(frontend.page.evaluate(SHOWN))
    assert all(note["fits"] and not note["broken"] for note in found.values()), found
    return {node_type: note["text"] for node_type, note in found.items()}


def test_stays_after_the_run_and_after_a_cached_one(frontend: Frontend) -> None:
    assert shown(frontend) == {}
    frontend.queue()
    assert shown(frontend) == SAID
    # All that frontends do at the end of the first run is done when the second one ends. It sends only what output nodes have to say.
    frontend.queue()
    assert shown(frontend) == SAID


def test_goes_when_a_run_has_nothing_to_say(frontend: Frontend) -> None:
    frontend.queue()
    frontend.page.evaluate("id => { app.rootGraph.getNodeById(id).widgets[0].value = '' }", SAYS)
    frontend.queue()
    assert shown(frontend) == {"DiaphanePreview": SHARES}


def test_is_not_saved_and_not_sent(frontend: Frontend) -> None:
    workflow, prompt = frontend.saved(), frontend.prompt()
    frontend.queue()
    assert shown(frontend) == SAID
    assert frontend.prompt() == prompt
    assert [_without_size(node) for node in frontend.saved()["nodes"]] == [_without_size(node) for node in workflow["nodes"]]


def test_is_there_again_after_another_workflow_and_after_undo(frontend: Frontend) -> None:
    frontend.queue()
    workflow = frontend.page.evaluate("() => app.extensionManager.workflow.activeWorkflow.path")
    frontend.page.evaluate("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    frontend.settle()
    frontend.page.evaluate("() => app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    frontend.page.wait_for_function("path => app.extensionManager.workflow.activeWorkflow.path == path", arg=workflow)
    assert shown(frontend) == SAID

    title = "() => app.rootGraph.nodes[0].title"
    before = frontend.page.evaluate(title)
    frontend.page.evaluate(
        """async () => {
            const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker
            app.rootGraph.nodes[0].title = 'changed'
            ;(tracker.captureCanvasState ?? tracker.checkState).call(tracker)
            await tracker.undo()
        }"""
    )
    assert frontend.page.evaluate(title) == before
    assert shown(frontend) == SAID


def test_is_shown_inside_a_subgraph(frontend: Frontend) -> None:
    frontend.page.evaluate(
        """ids => {
            const { subgraph } = app.rootGraph.convertToSubgraph(new Set(ids.map(id => app.rootGraph.getNodeById(id))))
            window.subgraph = subgraph
        }""",
        [LIST, PREVIEW],
    )
    frontend.queue()
    assert shown(frontend) == {"DiaphaneSays": ADVICE}
    frontend.page.evaluate("() => app.canvas.setGraph(window.subgraph)")
    frontend.settle()
    assert shown(frontend) == {"DiaphanePreview": SHARES}


def test_leaves_the_wheel_to_the_canvas(frontend: Frontend) -> None:
    frontend.queue()
    shown(frontend)
    box = frontend.page.locator("div", has_text="The picture is 100% opaque").last.bounding_box()
    assert box is not None
    before = frontend.page.evaluate("() => app.canvas.ds.scale")
    frontend.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    frontend.page.mouse.wheel(0, -100)
    frontend.settle()
    assert frontend.page.evaluate("() => app.canvas.ds.scale") == pytest.approx(1.1 * before)


def _without_size(node: Json) -> Json:
    return {key: value for key, value in node.items() if key != "size"}
