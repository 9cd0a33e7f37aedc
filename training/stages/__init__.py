"""The stages of the training, each a command: `python -m training.stages.NAME --help`."""
