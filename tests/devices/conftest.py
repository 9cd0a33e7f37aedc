"""The host in this process: its layers bring weights to the device that computes."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

# First of all: only then can the host be imported.
from tests.host.conftest import base_directory, models_folder, narrow_model

__all__ = ["base_directory", "models_folder", "narrow_model"]
