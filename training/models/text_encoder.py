"""CLIP's text encoder (Radford et al. 2021), in ComfyUI's key names, at any width; SD1.5's conditioning is its last layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .attention import attention

VOCABULARY = 49408
TOKENS = 77
PREFIX = "text_model."


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, inner_width: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.heads = heads
        self.activation = activation
        self.self_attn = nn.ModuleDict({name: nn.Linear(width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")})
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner_width), "fc2": nn.Linear(inner_width, width)})

    def forward(self, x: Tensor, causal: Tensor) -> Tensor:
        n = self.layer_norm1(x)
        q, k, v = (self.self_attn[f"{name}_proj"](n) for name in "qkv")
        x = x + self.self_attn["out_proj"](attention(q, k, v, self.heads, causal))
        return x + self.mlp["fc2"](self.activation(self.mlp["fc1"](self.layer_norm2(x))))


class TextEncoder(nn.Module):
    """Token ids [B, 77] -> text [B, 77, D]."""

    def __init__(
        self, width: int, layers: int, heads: int, activation: Callable[[Tensor], Tensor] = quick_gelu, inner_width: int | None = None
    ):
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, width)
        self.position_embedding = nn.Embedding(TOKENS, width)
        self.layers = nn.ModuleList([EncoderLayer(width, heads, inner_width or width * 4, activation) for _ in range(layers)])
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.final_layer_norm(self.hidden(tokens)[-1])

    def hidden(self, tokens: Tensor) -> list[Tensor]:
        """What each layer gives, not normalised."""
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.position_embedding.weight[:length]
        causal = torch.full((length, length), float("-inf"), device=x.device).triu(1)
        found = []
        for layer in self.layers:
            x = layer(x, causal)
            found.append(x)
        return found

    @classmethod
    def from_state_dict(
        cls, sd: Mapping[str, Tensor], activation: Callable[[Tensor], Tensor] = quick_gelu, head_dim: int = 64
    ) -> TextEncoder:
        """The encoder that `sd` (keys "text_model.…", as in ComfyUI's files) belongs to, filled, float32."""
        width = sd[f"{PREFIX}final_layer_norm.weight"].shape[0]
        layers = 1 + max(int(key.split(".")[3]) for key in sd if key.startswith(f"{PREFIX}encoder.layers."))
        inner_width = sd[f"{PREFIX}encoder.layers.0.mlp.fc1.weight"].shape[0]
        model = cls(width, layers, max(1, width // head_dim), activation, inner_width)
        model.load_released(sd)
        return model

    def load_released(self, sd: Mapping[str, Tensor]) -> None:
        """Fill from weights under ComfyUI's key names; a missing token table leaves the present one."""
        mine = self.state_dict()
        weights = {_own_name(key): tensor for key, tensor in sd.items() if _own_name(key) in mine}
        self.load_state_dict({"token_embedding.weight": mine["token_embedding.weight"]} | weights, strict=True)

    def released_state_dict(self) -> dict[str, Tensor]:
        """Weights under ComfyUI's key names."""
        return {_released_name(key): tensor for key, tensor in self.state_dict().items()}


def _own_name(key: str) -> str:
    return key.removeprefix(PREFIX).removeprefix("encoder.").removeprefix("embeddings.")


def _released_name(key: str) -> str:
    part = "encoder." if key.startswith("layers.") else "embeddings." if "_embedding." in key else ""
    return f"{PREFIX}{part}{key}"
