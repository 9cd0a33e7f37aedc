"""LayerDiffuse (Zhang & Agrawala 2024): transparent images and layers from diffusion models."""
