"""The prediction of the next observation: its inputs, what it refuses, and that a run learns with it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.agents.predictor import Predictor
from memoroids.cli.main import main
from memoroids.envs.observations import Mixed, Symbols
from memoroids.envs.spaces import Continuous, Factored


@pytest.mark.parametrize(
    ("actions", "action", "encoded"),
    [
        (3, jnp.asarray(1), [0, 1, 0]),
        (Factored((2, 3)), jnp.asarray([1, 2]), [0, 1, 0, 0, 1]),
        (Continuous(2, (-1.0, -1.0), (1.0, 1.0)), jnp.asarray([0.25, -0.5]), [0.25, -0.5]),
    ],
)
def test_it_is_linear_in_the_features_and_the_action(actions, action, encoded):
    predictor = Predictor(4, actions, (5,), key=jax.random.key(0))
    features = jnp.arange(4, dtype=jnp.float32)
    weight, bias = np.asarray(predictor.linear.weight), np.asarray(predictor.linear.bias)
    expected = weight @ np.concatenate((np.arange(4), encoded)) + bias
    np.testing.assert_allclose(predictor(features, action), expected, rtol=1e-5, atol=1e-6)


def test_symbols_are_predicted_one_hot():
    predictor = Predictor(4, 2, Mixed((), 3, (Symbols(0, 2, 3),)), key=jax.random.key(0))
    assert predictor(jnp.ones(4), jnp.asarray(1)).shape == (2 * 3 + 1,)


@pytest.mark.parametrize("shape", [(40, 40, 3), Mixed(((40, 40, 3),), 2)])
def test_images_are_not_predicted(shape):
    with pytest.raises(ValueError, match="only observations without images can be predicted"):
        Predictor(4, 2, shape, key=jax.random.key(0))


def test_a_run_learns_acts_resumes_and_is_evaluated_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = str(tmp_path / "run")
    small = "--width 16 --num-envs 4 --eval-episodes 2 --final-episodes 4 --steps 1200"
    main(f"train --env device:RepeatFirstEasy --algorithm ppo --prediction-weight 0.5 {small} --run-dir {run}".split())
    main(["evaluate", run, "--episodes", "4"])
    assert "final return" in capsys.readouterr().out
