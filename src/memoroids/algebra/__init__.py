"""Monoids, the reset of any monoid, and scans over time."""
