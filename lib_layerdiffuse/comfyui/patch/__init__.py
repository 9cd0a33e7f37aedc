"""Changes to a ModelPatcher, and nothing about pictures."""
