"""Where runs stand: seeds one after the other or mapped, on one device or several, in one process or several."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from memoroids.runs.settings import TrainConfig

SEEDS, ENVS = "seeds", "envs"


def join_processes() -> None:
    """Joins the processes that JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name, if they are set.

    Before anything else is done with JAX. Raises `ValueError` where they are not all there, or do not fit together.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = {name: os.environ[name] for name in names if name in os.environ}
    if not given:
        return
    if missing := [name for name in names if name not in given]:
        raise ValueError(f"several processes need {', '.join(names)}: {missing[0]} is not set")
    address, processes, process = given.values()
    if not (processes.isdecimal() and process.isdecimal() and int(process) < int(processes)):
        raise ValueError(f"JAX_PROCESS_ID must count from 0 to JAX_NUM_PROCESSES - 1, got {process} of {processes}")
    jax.distributed.initialize(address, int(processes), int(process))


class Placement:
    """How the state of a run, or of several seeds of it, lies on devices and is stepped.

    Seeds are looped over, one compiled program called for each, or mapped into one call. Over several devices go seeds,
    or, of a single run, the copies of its environment, their rings and the tapes of a batch, with the learner on each:
    XLA's partitioner adds what has to be summed over devices, the gradients above all.

    Raises `ValueError` where there are fewer devices than asked for.
    """

    def __init__(self, config: TrainConfig):
        self._config = config
        several = jax.process_count() > 1
        found = jax.devices()
        if config.devices > len(found):
            raise ValueError(
                f"devices {config.devices} were asked for, but there are {len(found)} ({found[0].platform}); on a CPU "
                f"XLA_FLAGS=--xla_force_host_platform_device_count={config.devices} makes more"
            )
        if several and config.devices != len(found):
            raise ValueError(f"{jax.process_count()} processes have {len(found)} devices: use --devices {len(found)}")
        mapping = config.mapping
        if mapping == "auto":
            mapping = "loop" if found[0].platform == "cpu" and not several else "vmap"
        if several and mapping == "loop" and config.seeds > 1:
            raise ValueError("mapping loop is for one process: several processes map their seeds, use --mapping vmap")
        self.first = jax.process_index() == 0
        """Whether this process writes: one of several does."""
        self.stacked = config.seeds > 1 and mapping == "vmap"
        self.axis = SEEDS if self.stacked else None
        self._devices = found[: config.devices]
        self._mesh = None
        if config.devices > 1 and (self.stacked or config.seeds == 1):
            self._mesh = Mesh(np.asarray(self._devices), (SEEDS if self.stacked else ENVS,))

    def seeds_of(self, group: int) -> range:
        """The seeds that one call steps."""
        return range(self._config.seeds) if self.stacked else range(group, group + 1)

    def place_states(
        self, init: Callable[..., Any], learners: Sequence[Any], keys: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        """First states and keys, a list with one entry for each group of seeds."""
        pairs = list(zip(jax.device_get(list(learners)), keys, strict=True))
        if self.stacked:
            stacked = _stack(pairs)
            made = jax.jit(jax.vmap(init, axis_name=SEEDS), **self._out(init, stacked, mapped=True))
            return [made(*stacked)], [stacked[1]]
        if self._mesh is not None:
            made = jax.jit(init, **self._out(init, pairs[0], mapped=False))
            return [made(*pairs[0])], [pairs[0][1]]
        made = jax.jit(init)
        states = []
        for number, pair in enumerate(pairs):
            states.append(made(*jax.device_put(pair, self._devices[number % len(self._devices)])))
        return states, [key for _, key in pairs]

    def _out(self, init: Callable[..., Any], arguments: Any, *, mapped: bool) -> dict[str, Any]:
        if self._mesh is None:
            return {}
        function = jax.vmap(init, axis_name=SEEDS) if mapped else init
        return {"out_shardings": self._shardings(jax.eval_shape(function, *arguments))}

    def _shardings(self, state: Any) -> Any:
        """Seeds apart; of a single run, what has an axis of copies along it, the rest on every device."""
        assert self._mesh is not None
        mesh = self._mesh

        def along_envs(leaf: Any) -> NamedSharding:
            split = leaf.ndim > 0 and leaf.shape[0] == self._config.num_envs
            return NamedSharding(mesh, PartitionSpec(ENVS) if split else PartitionSpec())

        if self.stacked:
            return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec(SEEDS)), state)
        everywhere = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), state)
        return everywhere._replace(
            env_states=jax.tree.map(along_envs, state.env_states), replay=jax.tree.map(along_envs, state.replay)
        )

    def compile(self, advance: Callable[..., Any], states: Sequence[Any]) -> Callable[..., Any]:
        """`advance(state, keys)` of a group, its state donated."""
        function = jax.vmap(advance, axis_name=SEEDS) if self.stacked else advance
        if self._mesh is None:
            return jax.jit(function, donate_argnums=0)
        out = (self._shardings(states[0]), NamedSharding(self._mesh, PartitionSpec()))
        return jax.jit(function, donate_argnums=0, out_shardings=out)

    def compile_evaluation(self, played: Callable[..., Any]) -> Callable[..., Any]:
        """`played(params, seeds)` of a group."""
        function = jax.vmap(played) if self.stacked else played
        if self._mesh is None:
            return jax.jit(function)
        return jax.jit(function, out_shardings=NamedSharding(self._mesh, PartitionSpec()))

    def batch(self, batch: Any) -> Any:
        """A batch of a single run over several devices, divided along its first axis."""
        if self._mesh is None or self.stacked:
            return batch
        return jax.lax.with_sharding_constraint(batch, NamedSharding(self._mesh, PartitionSpec(ENVS)))

    def stack_inputs(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """What each seed of a group is called with, as the group's call takes it."""
        return np.stack(values) if self.stacked else values[0]

    def fetch(self, values: Any) -> list[Any]:
        """What a group's call returned, on the host, for each of its seeds."""
        fetched = jax.device_get(values)
        if not self.stacked:
            return [fetched]
        return [jax.tree.map(lambda leaf, i=i: leaf[i], fetched) for i in range(self._config.seeds)]

    def state(self, states: Sequence[Any], seed: int) -> Any:
        """One seed's state, whole."""
        state = states[0] if self.stacked else states[seed]
        if jax.process_count() > 1:
            state = multihost_utils.process_allgather(state, tiled=True)
        return jax.tree.map(lambda leaf: leaf[seed], state) if self.stacked else state

    def restore_placement(self, taken: Sequence[Any], states: Sequence[Any]) -> list[Any]:
        """Each seed's state, back to where `states` lie."""
        groups = [_stack(taken)] if self.stacked else list(taken)
        return [
            jax.tree.map(lambda new, old: jax.device_put(jnp.asarray(new), old.sharding), group, state)
            for group, state in zip(groups, states, strict=True)
        ]


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)
