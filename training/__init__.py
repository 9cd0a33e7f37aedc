"""The training of LayerDiffuse: latent transparency, transparent diffusion models, joint layers (see training/README.md)."""
