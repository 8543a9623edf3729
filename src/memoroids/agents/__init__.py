"""The agents, one file each, read from top to bottom: settings, init, act, update."""
