"""Returns and advantages of several episodes on one tape, terminated and truncated, in one scan."""

import jax
import jax.numpy as jnp

from memoroids.returns import discounted_return, gae
from memoroids.tape import concatenate, episode

terminated = episode([[0.0], [0.1], [0.2]], [0, 1], [1.0, 1.0], terminated=True, truncated=False)
truncated = episode([[0.0], [0.3]], [1], [1.0], terminated=False, truncated=True)
tape = jax.tree.map(jnp.asarray, concatenate([terminated, truncated]))

value = jnp.array([0.5, 0.5, 0.5, 2.0, 4.0])  # v(s_t) of a critic, for every slot, the final ones too
value_tp1 = tape.next_slot(value)
flags = {"terminated": tape.terminated, "truncated": tape.truncated, "transition": tape.transition}

print("G:", discounted_return(tape.reward, discount=0.9, bootstrap=value_tp1, **flags))
print("A:", gae(tape.reward, value, value_tp1, discount=0.9, lambda_=0.95, **flags))
