"""Runs: settings, presets, what a run is made of, its directory, and the two training loops."""
