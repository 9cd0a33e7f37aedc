"""Arithmetic on RGBA pictures. torch only; pictures are [B, H, W, C], straight alpha, in [0, 1]; results are on the input's device."""
