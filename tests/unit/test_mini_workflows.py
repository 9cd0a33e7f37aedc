"""Every bundled workflow can be shown by the mini models, and what is changed for that is still there to be changed."""

from __future__ import annotations

import pytest

from dev import bundled, mini_workflows
from dev.workflow import graphs


@pytest.mark.parametrize("name", bundled.names())
def test_every_workflow_has_a_way_on_the_mini_models(name: str) -> None:
    nodes = [node for graph in graphs(mini_workflows.on_mini(name)) for node in graph["nodes"]]
    assert sum(node["type"] == "DiaphaneMini" for node in nodes) == 1
    assert not any(node["type"].startswith(("CheckpointLoader", "StandInCheckpoint")) for node in nodes)


@pytest.mark.parametrize("name", mini_workflows.WORDS)
def test_words_are_for_nodes_that_exist(name: str) -> None:
    titles = {node.get("title") for graph in graphs(bundled.read(name)) for node in graph["nodes"]}
    assert set(mini_workflows.WORDS[name]) <= titles
