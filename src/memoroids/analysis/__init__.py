"""Measures of how a trained agent uses its memory. Mathematics only: no files and no figures."""
