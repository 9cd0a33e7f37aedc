"""SDXL's conditioning: two text encoders side by side, and a vector of pooled text and sizes (Podell et al. 2023)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.tokens import END
from .text_encoder import TextEncoder
from .unet import timestep_embedding

SIZE_WIDTH = 256
PAD_G = 0  # the larger encoder is padded with this instead of the end token


class SDXLText(nn.Module):
    """Token ids [B, 77] -> text [B, 77, 2048] and vector [B, 2816], for squares of `side` pixels that nothing was cropped from."""

    def __init__(self, small: TextEncoder, large: TextEncoder, projection: Tensor, side: int):
        """projection: of the larger encoder's pooled text, [in, out]."""
        super().__init__()
        self.small = small
        self.large = large
        self.projection = nn.Parameter(projection, requires_grad=False)
        self.side = side

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        ends = (tokens == END).int().argmax(dim=1)
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.large.hidden(torch.where(positions > ends[:, None], PAD_G, tokens))
        text = torch.cat([self.small.hidden(tokens)[-2], hidden[-2]], dim=-1)
        pooled = self.large.final_layer_norm(hidden[-1])[torch.arange(len(tokens)), ends] @ self.projection
        sizes = torch.tensor([self.side, self.side, 0, 0, self.side, self.side], device=tokens.device)
        sizes = timestep_embedding(sizes, SIZE_WIDTH).flatten().expand(len(tokens), -1)
        return text, torch.cat([pooled, sizes.to(pooled)], dim=1)


def load_sdxl_text(small: Mapping[str, Tensor], large: Mapping[str, Tensor], side: int) -> SDXLText:
    """small: keys "text_model.…"; large: OpenCLIP's keys, both as in SDXL checkpoints without their prefixes."""
    encoder = TextEncoder.from_state_dict(from_open_clip(large), activation=F.gelu)
    return SDXLText(TextEncoder.from_state_dict(small), encoder, large["text_projection"], side)


_OPEN_CLIP = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def from_open_clip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's text encoder under CLIP's key names; its queries, keys and values come as one tensor."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        if key in _OPEN_CLIP:
            renamed[f"text_model.{_OPEN_CLIP[key]}"] = tensor
        elif match := re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", key):
            for name, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"text_model.encoder.layers.{match[1]}.self_attn.{name}_proj.{match[2]}"] = part
        elif match := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)", key):
            renamed[f"text_model.encoder.layers.{match[1]}.{_OPEN_CLIP_LAYER[match[2]]}.{match[3]}"] = tensor
    return renamed
