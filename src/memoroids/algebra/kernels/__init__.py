"""Kernels written by hand, one for each kind of device."""
