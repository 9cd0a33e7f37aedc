"""Which released file does what, what its keys mean, and how it gets here. No torch.nn, no comfy."""
