"""Placement of a run's seeds on devices: looped over or mapped with `vmap`, in one process or several."""

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
    """Joins the group of processes given by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, if set.

    Must be called before anything else is done with JAX. Raises `ValueError` if only some of them are set, or if they
    are inconsistent.
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
    """How the state of a run, or of its seeds, is placed on devices and advanced.

    A group is the set of seeds that one call of the compiled program advances: each seed by itself, or all of them with
    `vmap`. Several devices divide the seeds among them, or, in a run with one seed, the environments, their replay
    rings and the tapes of a batch. In the latter case every device holds the learner, and XLA's partitioner inserts the
    sums over devices, above all those of gradients.

    Raises `ValueError` if there are fewer devices than `config.placement.devices`.
    """

    def __init__(self, config: TrainConfig):
        self._config = config
        several = jax.process_count() > 1
        found = jax.devices()
        if config.placement.devices > len(found):
            raise ValueError(
                f"devices {config.placement.devices} is more than the {len(found)} that JAX finds "
                f"({found[0].platform}); on a CPU set XLA_FLAGS=--xla_force_host_platform_device_count="
                f"{config.placement.devices} for more"
            )
        if several and config.placement.devices != len(found):
            raise ValueError(
                f"{jax.process_count()} processes have {len(found)} devices in all: use --devices {len(found)}"
            )
        mapping = config.placement.mapping
        if mapping == "auto":
            mapping = "loop" if found[0].platform == "cpu" and not several else "vmap"
        if several and mapping == "loop" and config.placement.seeds > 1:
            raise ValueError("mapping loop is for a single process: with several processes use --mapping vmap")
        self.first = jax.process_index() == 0
        """Whether this process writes the run directory; of several processes, only the first does."""
        self.stacked = config.placement.seeds > 1 and mapping == "vmap"
        self.axis = SEEDS if self.stacked else None
        self._devices = found[: config.placement.devices]
        self._mesh = None
        if config.placement.devices > 1 and (self.stacked or config.placement.seeds == 1):
            self._mesh = Mesh(np.asarray(self._devices), (SEEDS if self.stacked else ENVS,))

    def seeds_of(self, group: int) -> range:
        """The seeds of a group, counted from 0."""
        return range(self._config.placement.seeds) if self.stacked else range(group, group + 1)

    def place_states(
        self, init: Callable[..., Any], learners: Sequence[Any], inputs: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        """Initial states and inputs on their devices, a list each with one entry per group; `init(learner, inputs)`."""
        pairs = list(zip(jax.device_get(list(learners)), inputs, strict=True))
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
        return states, [each for _, each in pairs]

    def _out(self, init: Callable[..., Any], arguments: Any, *, mapped: bool) -> dict[str, Any]:
        if self._mesh is None:
            return {}
        function = jax.vmap(init, axis_name=SEEDS) if mapped else init
        return {"out_shardings": self._shardings(jax.eval_shape(function, *arguments))}

    def _shardings(self, state: Any) -> Any:
        """Divides mapped seeds; in a run with one seed, leaves with an axis of environments. The rest is replicated."""
        assert self._mesh is not None
        mesh = self._mesh

        def along_envs(leaf: Any) -> NamedSharding:
            split = leaf.ndim > 0 and leaf.shape[0] == self._config.collection.num_envs
            return NamedSharding(mesh, PartitionSpec(ENVS) if split else PartitionSpec())

        if self.stacked:
            return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec(SEEDS)), state)
        everywhere = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), state)
        return everywhere._replace(
            env_states=jax.tree.map(along_envs, state.env_states), replay=jax.tree.map(along_envs, state.replay)
        )

    def compile(self, advance: Callable[..., Any], states: Sequence[Any]) -> Callable[..., Any]:
        """`advance(state, inputs, chunks)` compiled for a group, whose seeds share `chunks`; the state is donated."""
        function = jax.vmap(advance, in_axes=(0, 0, None), axis_name=SEEDS) if self.stacked else advance
        if self._mesh is None:
            return jax.jit(function, donate_argnums=0)
        out = (self._shardings(states[0]), NamedSharding(self._mesh, PartitionSpec()))
        return jax.jit(function, donate_argnums=0, out_shardings=out)

    def compile_evaluation(self, played: Callable[..., Any]) -> Callable[..., Any]:
        """`played(params, seeds)` compiled for a group; see `DeviceEvaluator.played`."""
        function = jax.vmap(played) if self.stacked else played
        if self._mesh is None:
            return jax.jit(function)
        return jax.jit(function, out_shardings=NamedSharding(self._mesh, PartitionSpec()))

    def batch(self, batch: Any) -> Any:
        """Divides a batch along its first axis in a run with one seed on several devices, else returns it as it is."""
        if self._mesh is None or self.stacked:
            return batch
        return jax.lax.with_sharding_constraint(batch, NamedSharding(self._mesh, PartitionSpec(ENVS)))

    def stack_inputs(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Inputs of the seeds of a group as the input of the group's call: (seeds, …) if mapped, else the only one."""
        return np.stack(values) if self.stacked else values[0]

    def fetch(self, values: Any) -> list[Any]:
        """The results of a group's call, copied to the host: one entry per seed of the group."""
        fetched = jax.device_get(values)
        if not self.stacked:
            return [fetched]
        return [jax.tree.map(lambda leaf, i=i: leaf[i], fetched) for i in range(self._config.placement.seeds)]

    def state(self, states: Sequence[Any], seed: int) -> Any:
        """The state of one seed out of those of all groups; with several processes gathered from their devices."""
        state = states[0] if self.stacked else states[seed]
        if jax.process_count() > 1:
            state = multihost_utils.process_allgather(state, tiled=True)
        return jax.tree.map(lambda leaf: leaf[seed], state) if self.stacked else state

    def restore_placement(self, restored: Sequence[Any], states: Sequence[Any]) -> list[Any]:
        """Puts the restored states of all seeds on the devices of `states`: a list with one entry per group."""
        groups = [_stack(restored)] if self.stacked else list(restored)
        return [
            jax.tree.map(lambda new, old: jax.device_put(jnp.asarray(new), old.sharding), group, state)
            for group, state in zip(groups, states, strict=True)
        ]


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)
