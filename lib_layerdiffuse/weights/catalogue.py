"""The released LayerDiffuse files: which one does what, its address, and its checksum.

Source: docs/facts.md section 1. A size is given only if the key tables reproduce it to the byte (tests/unit/test_weights_catalogue.py
does so); the sha256 is what decides.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import Enum

from ..errors import DiaphaneError


class Family(str, Enum):
    """A family of diffusion models."""

    SD15 = "SD1.5"
    SDXL = "SDXL"
    FLUX = "Flux"

    __str__ = str.__str__


class Role(str, Enum):
    """What a file is for. The value is how a sentence names it."""

    TRANSPARENT_ATTENTION = "transparent image (attention)"
    TRANSPARENT_CONV = "transparent image (conv)"
    JOINT = "joint layers"
    FOREGROUND_TO_BLENDED = "foreground -> blended"
    BACKGROUND_TO_BLENDED = "background -> blended"
    FOREGROUND_BLENDED_TO_BACKGROUND = "foreground + blended -> background"
    BACKGROUND_BLENDED_TO_FOREGROUND = "background + blended -> foreground"
    FOREGROUND_TO_BACKGROUND = "foreground -> background + blended"
    BACKGROUND_TO_FOREGROUND = "background -> foreground + blended"
    BRUSH = "brush (background and area -> foreground + blended)"  # none was released: models bring their own
    DECODER = "transparency decoder"
    ENCODER = "offset encoder"

    __str__ = str.__str__


@dataclass(frozen=True)
class WeightFile:
    """One released file. `size` is None where the published byte count is not known exactly."""

    name: str
    family: Family
    roles: frozenset[Role]
    repo: str
    revision: str
    size: int | None
    sha256: str
    licence: str

    def __post_init__(self) -> None:
        # The name becomes a path in the artist's model folder and must not lead out of it.
        if not re.fullmatch(r"\w[\w.\-]*", self.name, re.ASCII):
            raise ValueError(f"not a plain file name: {self.name!r}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"not a sha256: {self.sha256!r}")

    @property
    def url(self) -> str:
        """Where the file is fetched from, on the mirror that HF_ENDPOINT names if it is set."""
        endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        return f"{endpoint}/{self.repo}/resolve/{self.revision}/{self.name}"

    @property
    def title(self) -> str:
        """Family and roles, as in "SDXL transparency decoder" or "SD1.5 joint layers"."""
        return f"{self.family} {' and '.join(role for role in Role if role in self.roles)}"


def _layerdiffusion(name: str, family: Family, role: Role, size: int | None, sha256: str) -> WeightFile:
    return WeightFile(
        name=f"{name}.safetensors",
        family=family,
        roles=frozenset({role}),
        repo="LayerDiffusion/layerdiffusion-v1",
        revision="e337e9d7a0f2a6fee6c3580374327380f88d065b",
        size=size,
        sha256=sha256,
        licence="creativeml-openrail-m",
    )


def _flux(name: str, roles: set[Role], sha256: str) -> WeightFile:
    # The repository's revision is not known: "main" may move, the sha256 pins the content all the same.
    return WeightFile(name, Family.FLUX, frozenset(roles), "RedAIGC/Flux-version-LayerDiffuse", "main", None, sha256, "afl-3.0")


_XL, _SD = Family.SDXL, Family.SD15

# fmt: off
CATALOGUE: tuple[WeightFile, ...] = (
    _layerdiffusion("layer_xl_transparent_attn", _XL, Role.TRANSPARENT_ATTENTION, 743_352_688,
                    "b7919c5b4837fb64f24c97a7abdf1a9c6e8d60de080a5dae089dde098266df95"),
    _layerdiffusion("layer_xl_transparent_conv", _XL, Role.TRANSPARENT_CONV, 3_619_745_776,
                    "5ee958d80dcd515fa7ac915274c536fadd3db5d919adeb5ff45107b6169aacc7"),
    _layerdiffusion("layer_xl_fg2ble", _XL, Role.FOREGROUND_TO_BLENDED, 701_981_624,
                    "50a29851ad56308f14d6c9ed375be17df6921efeca240b31f567f6b8c76d1e70"),
    _layerdiffusion("layer_xl_bg2ble", _XL, Role.BACKGROUND_TO_BLENDED, 701_981_624,
                    "2901d1353cc4ca763c8bedc48453b36e88680605f417c7f7ec730a7c36845d7c"),
    _layerdiffusion("layer_xl_fgble2bg", _XL, Role.FOREGROUND_BLENDED_TO_BACKGROUND, 702_004_664,
                    "179a61fdcdb149af1897b2840f24ba09466ab6265b2c792b0e99df557f0439be"),
    _layerdiffusion("layer_xl_bgble2fg", _XL, Role.BACKGROUND_BLENDED_TO_FOREGROUND, 3_619_791_856,
                    "1688f0c17447f74662686fadd431f24d26a1ba8ffea322c6f56c8b5ed581b78d"),
    _layerdiffusion("vae_transparent_decoder", _XL, Role.DECODER, 208_266_320,
                    "59dc8feefe40d26b6cb7186aed7af70c60d94ac4f9db8ebe7f121a01ba27a2fc"),
    _layerdiffusion("vae_transparent_encoder", _XL, Role.ENCODER, 2_365_008,
                    "47d048bd7c6f873b55d123ff424c0b584bbfb8a666f20aa634336e922f5c821c"),
    _layerdiffusion("layer_sd15_transparent_attn", _SD, Role.TRANSPARENT_ATTENTION, 350_266_608,
                    "cc9ee87452bf1ccdd419035bf9618f6bdcaac1a2d3e23694d62e5a9c721da295"),
    _layerdiffusion("layer_sd15_joint", _SD, Role.JOINT, 554_404_208,
                    "2cc81c33c1a786bdc376c6d1bfb43dbdffda2f610f7c6b4ebd776505a29712bd"),
    _layerdiffusion("layer_sd15_fg2bg", _SD, Role.FOREGROUND_TO_BACKGROUND, 562_982_312,
                    "5bade856ec3e55d6ceb0e35bbc97cea7fa4953f7776c8032f2fe52ba740ed580"),
    _layerdiffusion("layer_sd15_bg2fg", _SD, Role.BACKGROUND_TO_FOREGROUND, 562_982_312,
                    "8367f976da1cc4275e513c7fb40f977ca312e79e720d7db7ae94978a9359fb62"),
    _layerdiffusion("layer_sd15_vae_transparent_decoder", _SD, Role.DECODER, None,
                    "6df4712dfbb3783231b22f869a5da5cbfea782ebb05f782bd9e8744bfb0cdf03"),
    _layerdiffusion("layer_sd15_vae_transparent_encoder", _SD, Role.ENCODER, None,
                    "4c6bd4fa714bcdc83ee73fac9092f0723c5cafc60befccf490c697c0a378725a"),
    _flux("TransparentVAE.pth", {Role.DECODER, Role.ENCODER},
          "557c68a36b84ca604b9232824eea720fba002281bd9b0007a444137359538b4e"),
    # An ordinary Flux LoRA, listed under the method that is a LoRA in the other families too.
    _flux("layerlora.safetensors", {Role.TRANSPARENT_ATTENTION},
          "ffa34d60e92c7bcd6414dc7a8735e27d5138bcda5248b3131329b3f405aadb53"),
)
# fmt: on

# The closest roles of a family without files for a role.
_INSTEAD: dict[Role, tuple[Role, ...]] = {
    Role.TRANSPARENT_CONV: (Role.TRANSPARENT_ATTENTION,),
    Role.JOINT: (Role.FOREGROUND_TO_BLENDED, Role.BACKGROUND_TO_BLENDED),
    Role.FOREGROUND_TO_BLENDED: (Role.FOREGROUND_TO_BACKGROUND,),
    Role.BACKGROUND_TO_BLENDED: (Role.BACKGROUND_TO_FOREGROUND,),
    Role.FOREGROUND_BLENDED_TO_BACKGROUND: (Role.FOREGROUND_TO_BACKGROUND,),
    Role.BACKGROUND_BLENDED_TO_FOREGROUND: (Role.BACKGROUND_TO_FOREGROUND,),
    Role.FOREGROUND_TO_BACKGROUND: (Role.FOREGROUND_TO_BLENDED, Role.FOREGROUND_BLENDED_TO_BACKGROUND),
    Role.BACKGROUND_TO_FOREGROUND: (Role.BACKGROUND_TO_BLENDED, Role.BACKGROUND_BLENDED_TO_FOREGROUND),
}


def lookup(family: Family, role: Role) -> WeightFile:
    """The released file that does `role` for `family`.

    Raises DiaphaneError where none was released, naming the families that have one and the role that comes closest.
    """
    roles = {(file.family, known): file for file in CATALOGUE for known in file.roles}
    if (family, role) in roles:
        return roles[family, role]
    others = " and ".join(other for other in Family if (other, role) in roles)
    if not others:
        raise DiaphaneError(
            f"There are no released weights for '{role}'. Use Mini Models (demo), which bring some, or choose a file that you have trained."
        )
    instead = [close for close in _INSTEAD.get(role, ()) if (family, close) in roles]
    advice = f" {family} has {' and '.join(repr(str(close)) for close in instead)} instead." if instead else ""
    raise DiaphaneError(f"There are no released {family} weights for '{role}', only for {others}: use a model of that family.{advice}")
