"""`memoroids bench tape`: a length is compared with the time per slot of the shortest."""

from compared import assert_compared

from memoroids.benchmarks import long_tapes


def test_a_length_is_compared_with_the_time_per_slot_of_the_shortest():
    assert_compared(long_tapes.figures(1, (64,), chunk=16), set(), {"at the time per slot of 64 slots"})
