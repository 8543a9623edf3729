"""Acting: collection of episodes on host and device, and greedy evaluation."""
