"""The Legendre Memory Unit: its window is the delay that its matrices are derived for."""

import numpy as np
import pytest
from numpy.polynomial import legendre

from memoroids.memory.lmu import delay


@pytest.mark.parametrize("back", [0.25, 0.5, 1.0])
def test_the_window_holds_the_last_theta_steps_of_its_input(back: float):
    order, theta = 8, 60.0
    a, b = delay(order, theta)
    signal = np.sin(2 * np.pi * np.arange(400) / 90)
    m, seen = np.zeros(order), []
    for u in signal:
        m = a @ m + b * u
        # The input r θ steps ago is Σ_i P_i(2r - 1) m_i, P_i the Legendre polynomials (the paper, Equation 3).
        seen.append(legendre.legval(2 * back - 1, m))
    lag = int(back * theta)
    # The input is held for a step, so that the signal seen is half a step late.
    expected = (signal[200 - lag : 400 - lag] + signal[199 - lag : 399 - lag]) / 2
    np.testing.assert_allclose(seen[200:], expected, atol=0.07)


def test_the_hold_is_exact_whatever_the_step():
    # Two steps of one length are one step of twice the length, under a constant input.
    a, b = delay(5, 20.0)
    a2, b2 = delay(5, 10.0)
    np.testing.assert_allclose(a @ a, a2, atol=1e-12)
    np.testing.assert_allclose(a @ b + b, b2, atol=1e-12)


def test_a_window_without_input_empties():
    a, _ = delay(32, 128.0)
    assert np.abs(np.linalg.eigvals(a)).max() < 1
