"""Monoids, resets for any monoid, and scans over time."""
