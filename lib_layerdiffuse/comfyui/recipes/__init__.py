"""One file for each thing that artists ask for."""
