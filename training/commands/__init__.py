"""The commands: `python -m training.commands.NAME --help`; on several devices `accelerate launch -m training.commands.NAME …`."""
