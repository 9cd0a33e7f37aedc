"""The host in this process: its layers bring weights to the device that computes."""

from __future__ import annotations

# First of all: only then can the host be imported.
from tests.host.conftest import base_directory, models_folder, narrow_model

__all__ = ["base_directory", "models_folder", "narrow_model"]
