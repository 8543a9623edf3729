"""Reproduction of the paper's figures: grids of runs, their statistics and their reports."""
