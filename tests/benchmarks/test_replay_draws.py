"""`memoroids bench replay`: sampling and adding are compared with a copy."""

from compared import COPIES, assert_compared

from memoroids.benchmarks import replay_draws


def test_sampling_and_adding_are_compared_with_a_copy():
    assert_compared(replay_draws.figures(1, 2_000_000 // 400), set(), COPIES)
