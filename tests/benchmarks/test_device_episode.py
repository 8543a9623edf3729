"""`memoroids bench device`: an episode is compared with collecting it and the update's matrix products."""

import pytest
from compared import assert_compared

from memoroids.benchmarks import device_episode


@pytest.mark.slow
def test_an_episode_is_compared_with_collecting_it_and_the_updates_matrix_products():
    assert_compared(device_episode.figures(1, ("ffm",)), {"collecting only"}, {"the update's matrix products"})
