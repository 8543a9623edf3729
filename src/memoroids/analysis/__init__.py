"""Measures of what a trained memory does: mathematics only."""
