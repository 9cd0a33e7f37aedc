"""A plain run keeps the order in which tests are written; `make test-shuffled` does not."""

from __future__ import annotations

import pytest


def test_tests_are_shuffled_only_when_asked(pytestconfig: pytest.Config) -> None:
    asked = "randomly" in pytestconfig.option.plugins
    assert pytestconfig.pluginmanager.hasplugin("randomly") == asked
