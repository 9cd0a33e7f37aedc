"""Every bundled workflow can be shown by the mini models, and what is changed for that is still there to be changed."""

from __future__ import annotations

import pytest

from dev import bundled, mini_workflows


@pytest.mark.parametrize("name", bundled.names())
def test_every_workflow_has_a_way_on_the_mini_models(name: str) -> None:
    types = [node["class_type"] for node in mini_workflows.on_mini(name).values()]
    assert types.count("DiaphaneMini") == 1
    assert not any(kind.startswith(("CheckpointLoader", "StandInCheckpoint")) for kind in types)


@pytest.mark.parametrize("name", mini_workflows.WORDS)
def test_words_are_for_nodes_that_exist(name: str) -> None:
    prompt = bundled.prompt(name)
    assert set(mini_workflows.WORDS[name]) <= prompt.keys() | {node["_meta"]["title"] for node in prompt.values()}
