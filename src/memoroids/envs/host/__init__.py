"""Environments on the host (Gymnasium, POPGym and Atari), in this process or in others."""
