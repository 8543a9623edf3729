"""`memoroids bench long_returns`: returns are compared with the scans of JAX and a copy."""

from compared import COPIES, assert_compared

from memoroids.benchmarks import long_returns


def test_returns_are_compared_with_the_scans_of_JAX_and_a_copy():
    assert_compared(long_returns.figures(1, 500), {"lax.associative_scan", "lax.scan"}, COPIES)
