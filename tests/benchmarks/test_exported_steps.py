"""`memoroids bench export`: a step is compared with the agent's, for both kinds of action."""

import re

from compared import assert_compared

from memoroids.benchmarks import exported_steps


def test_a_step_is_compared_with_that_of_the_agent_itself():
    found = list(exported_steps.figures(1, ("gru",), width=8))
    assert_compared(found, {"the agent itself", "its step, compiled"}, set())
    assert [figure.what.partition(":")[0] for figure in found] == ["gru, discrete", "gru, continuous"]
    for figure in found:
        assert re.search(r"differs by \S+ in \d+ steps", figure.what) and figure.bytes["ours"] > 1_000
