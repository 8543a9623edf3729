"""Whether numbers look as if they were drawn from a distribution, for tests of initial parameters."""

from typing import Any

import numpy as np
from scipy import stats


def assert_drawn_from(distribution: Any, values: Any, what: str = "") -> None:
    """The Kolmogorov-Smirnov test at one in a thousand: with a fixed seed it passes or fails for good."""
    result = stats.kstest(np.asarray(values, np.float64).ravel(), distribution.cdf)
    assert result.pvalue > 1e-3, f"{what}: not drawn from this distribution, {result}"


def within(limit: float) -> Any:
    """The uniform distribution over ±limit."""
    return stats.uniform(-limit, 2 * limit)


def normal(variance: float) -> Any:
    """The normal distribution of mean 0."""
    return stats.norm(scale=variance**0.5)
