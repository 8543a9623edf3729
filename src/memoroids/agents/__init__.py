"""The agents, one module each with settings, `init`, `act` and `update`, and the networks and losses they share."""
