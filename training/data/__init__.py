"""Pictures to train on: procedural ones with exact alpha, and a user's own folder."""
