"""A decoder of which the host leaves a part behind: some weights on the device, norms on the CPU."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import comfy.model_management as memory
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
from tests.devices.elsewhere import DEVICE, elsewhere, fake
from tests.devices.test_networks import build


def moved(module: nn.Module, device: torch.device) -> nn.Module:
    """`module.to(device)`, which cannot swap fake parameters while the host has a list of them."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, name, nn.Parameter(parameter.to(device), requires_grad=False))
    return module


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("side", [512, 1024])
def test_norms_left_behind(side: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the host asks of a real card only.
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(memory, "pin_memory", lambda *_: False)
    monkeypatch.setattr(nn.Module, "to", moved)
    decoder = build.__wrapped__(TransparentDecoder, "decoder_sd", torch.float16)
    with elsewhere():
        patcher = ModelPatcher(decoder, load_device=DEVICE, offload_device=torch.device("cpu"))
        patcher.load(DEVICE, lowvram_model_memory=int(patcher.model_size() * share))
        there = {name for name, parameter in decoder.named_parameters() if parameter.device == DEVICE}
        norms = {f"{name}.weight" for name, module in decoder.named_modules() if isinstance(module, nn.GroupNorm)}
        assert norms - there and bool(there) == (share > 0.0)
        result = decoder(fake(1, 3, side, side, dtype=torch.float16), fake(1, 4, side // 8, side // 8, dtype=torch.float16))
    assert result.device == DEVICE
