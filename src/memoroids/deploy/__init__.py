"""Trained agents outside of this package: exported programs that need neither it nor JAX."""
