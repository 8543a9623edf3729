"""The monoid of the last entries: laws over its whole set, lists as a reference, and its products without a scan."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids import Resettable, check_monoid, scan
from memoroids.algebra.window import Window, bands, last_window, steps_before, windows

SIZE, LENGTH = 4, 11
WINDOW = Window(SIZE, (2,))
BEGIN = np.isin(np.arange(LENGTH), (0, 4, 8, 9))


def window(rows):
    """The element that holds these rows."""
    entries = np.zeros((SIZE, 2), np.float32)
    entries[SIZE - len(rows) :] = rows
    return jnp.asarray(entries), jnp.asarray(len(rows), jnp.int32)


def sequence():
    return np.random.default_rng(3).standard_normal((LENGTH, 2)).astype(np.float32)


def test_the_laws_hold_for_windows_of_every_fullness():
    rows = sequence()
    elements = [window(rows[:count]) for count in (0, 1, 2, 3, 4, 2, 4)]
    check_monoid(WINDOW, jax.tree.map(lambda *leaves: jnp.stack(leaves), *elements), tolerance=0.0)


def test_a_product_holds_the_last_of_both_operands_entries():
    rows = sequence()
    combine = jax.jit(WINDOW.combine)
    for left, right in itertools.product(range(SIZE + 1), repeat=2):
        got = combine(window(rows[:left]), window(rows[left : left + right]))
        want = window(rows[: left + right][-SIZE:])
        np.testing.assert_array_equal(got[0], want[0])
        assert got[1] == want[1]


@pytest.mark.parametrize("backend", ["sequential", "blocked", "associative"])
@pytest.mark.parametrize("begin", [BEGIN, np.zeros(LENGTH, bool)], ids=["episodes", "one that goes on"])
def test_windows_read_from_the_sequence_are_the_products_of_a_scan(backend, begin):
    x, initial = sequence(), window(-sequence()[:1])
    elements = jax.vmap(WINDOW.element)(jnp.asarray(x)), jnp.asarray(begin)
    want, _ = scan(Resettable(WINDOW), elements, initial=(initial, jnp.zeros((), bool)), backend=backend)
    got = windows(jnp.asarray(x), jnp.asarray(begin), initial)
    last = last_window(jnp.asarray(x), jnp.asarray(begin), initial)
    for g, end, w in zip(got, last, want, strict=True):
        np.testing.assert_array_equal(g, w)
        np.testing.assert_array_equal(end, w[-1])


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 8, 11])
def test_a_band_holds_the_windows_of_its_block(steps):
    x, (before, _) = sequence()[:steps], window(-sequence()[:SIZE])
    block = min(SIZE, steps)
    got = bands(before, jnp.asarray(x), block)
    joined = np.concatenate((before, x))
    for t in range(steps):
        of, place = divmod(t, block)
        np.testing.assert_array_equal(got[of][place : place + SIZE], joined[t + 1 : t + 1 + SIZE])


def test_the_number_of_a_step_counts_from_its_begin_flag_or_goes_on_from_the_state():
    begin = jnp.asarray([False, False, True, True, False, False])
    np.testing.assert_array_equal(steps_before(begin, jnp.int32(7)), [7, 8, 0, 0, 1, 2])
