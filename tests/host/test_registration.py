"""A host that is older than any that the pack was tried with is named in the log, and no other."""

from __future__ import annotations

import asyncio
import logging
import re
from types import ModuleType

import comfyui_version
import pytest

from dev import comfyui
from dev.source import SOURCES
from lib_layerdiffuse.comfyui.registration import OLDEST_COMFYUI


@pytest.mark.parametrize("version", ["0.3.76", "0.17.9", "0.18.1"])
def test_a_host_that_is_too_old_is_named(
    pack: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    monkeypatch.setattr(comfyui_version, "__version__", version)
    asyncio.run(pack.Diaphane().on_load())
    [said] = [record for record in caplog.records if record.name == "diaphane"]
    assert said.levelno == logging.WARNING
    assert said.getMessage() == f"Diaphane needs ComfyUI 0.18.2 or newer, this is {version}. Update ComfyUI."


@pytest.mark.parametrize("version", ["0.18.2", "0.18.10", "0.30.0", "1.0", "0.31.0-rc1", "unknown"])
def test_other_hosts_are_not(pack: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str) -> None:
    monkeypatch.setattr(comfyui_version, "__version__", version)
    asyncio.run(pack.Diaphane().on_load())
    assert [record for record in caplog.records if record.name == "diaphane"] == []


def test_the_oldest_host_is_the_one_that_is_declared_and_tested() -> None:
    declared = re.search(r'requires-comfyui = ">=(.*)"', (comfyui.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert declared and declared[1] == OLDEST_COMFYUI == min(SOURCES, key=lambda version: [int(part) for part in version.split(".")])
    assert f"test-on-{OLDEST_COMFYUI}" in (comfyui.ROOT / "Makefile").read_text(encoding="utf-8")
