"""Which family a model is of, which file is for it, and the mini family."""
