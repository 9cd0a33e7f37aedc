"""The networks of LayerDiffuse and their maths. torch and einops only."""
