"""The networks of LayerDiffuse and their maths. torch only."""
