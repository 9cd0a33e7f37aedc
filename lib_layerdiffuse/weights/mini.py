"""The files of the mini family: what they are called, and how its text encoder keeps only the words that were trained."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .catalogue import Role

MODEL, TEXT_ENCODER, AUTOENCODER = "unet", "text_encoder", "vae"
OFFSET_ENCODER, DECODER = "transparent_encoder", "transparent_decoder"
TRANSPARENT, JOINT, FOREGROUND_TO_BACKGROUND, BACKGROUND_TO_FOREGROUND = "transparent", "joint", "fg2bg", "bg2fg"
BRUSH = "brush"
LAYER_WEIGHTS = {
    Role.TRANSPARENT_ATTENTION: TRANSPARENT,
    Role.JOINT: JOINT,
    Role.FOREGROUND_TO_BACKGROUND: FOREGROUND_TO_BACKGROUND,
    Role.BACKGROUND_TO_FOREGROUND: BACKGROUND_TO_FOREGROUND,
    Role.BRUSH: BRUSH,
    Role.DECODER: DECODER,
    Role.ENCODER: OFFSET_ENCODER,
}
# CLIP's vocabulary; words that were not trained are zero.
VOCABULARY = 49408
TOKEN_TABLE = "text_model.embeddings.token_embedding.weight"
TOKEN_ROWS, TOKEN_IDS = (TOKEN_TABLE.replace(".weight", end) for end in (".rows", ".ids"))


def without_untrained_words(weights: Mapping[str, Tensor], words: Tensor) -> dict[str, Tensor]:
    """A text encoder's weights with only the rows of `words` (token ids, 1-D); a file has `words` under TOKEN_IDS beside them."""
    return {**_without(weights, TOKEN_TABLE), TOKEN_ROWS: weights[TOKEN_TABLE][words]}


def with_all_words(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder's weights, as a file has them, with the whole token table: zero for words that were not trained."""
    rows, ids = weights[TOKEN_ROWS], weights[TOKEN_IDS].long()
    return {**_without(weights, TOKEN_ROWS, TOKEN_IDS), TOKEN_TABLE: rows.new_zeros(VOCABULARY, rows.shape[1]).index_copy_(0, ids, rows)}


def _without(weights: Mapping[str, Tensor], *keys: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in weights.items() if key not in keys}
