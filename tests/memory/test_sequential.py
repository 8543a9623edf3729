"""The scan of models whose update is not associative."""

import jax
import jax.numpy as jnp
import pytest

from memoroids.memory import GRU, LSTM, SLSTM, Elman


@pytest.mark.parametrize(("model", "gates"), [(GRU, 3), (LSTM, 4), (SLSTM, 4), (Elman, 1)])
def test_inputs_are_multiplied_for_all_steps_at_once_outside_the_loop(model, gates):
    memory = model(5, 4, key=jax.random.key(0))
    jaxpr = jax.make_jaxpr(lambda x, begin: memory(x, begin))(jnp.zeros((7, 5)), jnp.zeros(7, bool))

    def products(equations):
        return [e.outvars[0].aval.shape for e in equations if e.primitive.name == "dot_general"]

    (loop,) = (e for e in jaxpr.eqns if e.primitive.name == "scan")
    assert products(jaxpr.eqns) == [(7, 4 * gates)]
    assert len(products(loop.params["jaxpr"].eqns)) == 1
