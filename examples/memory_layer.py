"""A memory model on its own: a whole sequence at once, in pieces, or step by step, with the same results."""

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.memory import REGISTRY

model = REGISTRY["lru"](3, 16, key=jax.random.key(0))
x = jax.random.normal(jax.random.key(1), (100, 3))
begin = jnp.zeros(100, bool).at[jnp.array([0, 40])].set(True)  # two episodes end to end

s, state = model(x, begin)  # (100, 16)

first, between = model(x[:60], begin[:60])
second, _ = model(x[60:], begin[60:], between)  # continues in the middle of the second episode

step = eqx.filter_jit(model.step)
s_t, memory = s[0], model.initial_state()
for t in range(100):  # O(1) in time: how an agent acts
    s_t, memory = step(x[t], begin[t], memory)

print("in pieces:", jnp.allclose(second, s[60:], atol=1e-4), " step by step:", jnp.allclose(s_t, s[-1], atol=1e-4))
