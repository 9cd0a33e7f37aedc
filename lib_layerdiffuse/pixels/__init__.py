"""Arithmetic on RGBA pictures. torch only; pictures are [B, H, W, C], straight alpha, values in [0, 1]."""
