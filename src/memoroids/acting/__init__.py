"""Policies at work: collection on the host and on device, and greedy evaluation."""
