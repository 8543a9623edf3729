"""Episodes in which every slot encodes its episode and step, and a function that reads them back from tapes."""

import jax
import numpy as np

from memoroids.tape import episode

FIELDS = ("observation", "begin", "action", "reward", "terminated", "truncated", "transition")


def make(number, length):
    """An episode that encodes its number n and the step t: observation 1000 n + t, action t, reward n + t / 1000."""
    t = np.arange(length + 1)
    return episode(
        (1000.0 * number + t).astype(np.float32)[:, None],
        t[:-1].astype(np.int32),
        number + t[:-1] / 1000,
        terminated=number % 2 == 0,
        truncated=number % 2 == 1,
    )


def read(tape):
    """The (number, length) of every episode on a tape; asserts that each is complete and in order."""
    tape = jax.tree.map(np.asarray, tape)
    starts = np.flatnonzero(tape.begin & tape.transition)
    found = []
    for start in starts:
        length = 0
        while tape.transition[start + length]:
            length += 1
        number, first = divmod(int(tape.observation[start, 0]), 1000)
        assert first == 0
        whole = make(number, length)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(tape, name)[start : start + length + 1], getattr(whole, name))
        found.append((number, length))
    used = sum(length + 1 for _, length in found)
    assert tape.padding[used:].all() and not tape.padding[:used].any()
    return found
