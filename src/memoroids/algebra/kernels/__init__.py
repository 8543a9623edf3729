"""Hand-written kernels, one for each kind of device."""
