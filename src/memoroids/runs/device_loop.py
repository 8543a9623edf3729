"""The host side of training on device: calls the compiled program, records what it did, evaluates and saves."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from memoroids.acting.evaluation import Evaluation, Evaluations, in_ways
from memoroids.envs import EnvironmentFault
from memoroids.runs import checkpoint
from memoroids.runs.baseline import device_baselines
from memoroids.runs.build import DeviceParts
from memoroids.runs.device_program import Inputs, Program
from memoroids.runs.placement import Placement
from memoroids.runs.progress import Outcome, TrainingError
from memoroids.runs.recorder import Recorder
from memoroids.runs.schedule import newest_epsilon, save_due
from memoroids.runs.seeds import EVALUATE, FINAL, environment_seeds
from memoroids.runs.settings import TrainConfig
from memoroids.runs.shared_program import differing_numbers


class DeviceRun:
    """The seeds of a run as they advance, each with its own recorder.

    A group is the set of seeds that one call of the program advances, see `Placement`; seeds count from 0 here.
    """

    def __init__(
        self,
        config: TrainConfig,
        placement: Placement,
        parts: Sequence[DeviceParts],
        recorders: Sequence[Recorder],
        learners: Sequence[Any],
    ):
        self.config, self.placement, self.parts, self.recorders = config, placement, parts, recorders
        self.evaluator = parts[0].evaluator
        program = Program.of(config, parts[0], axis=self.placement.axis, place_batch=self.placement.batch)
        numbers = differing_numbers([recorder.config for recorder in recorders])
        inputs = [Inputs.of(*each) for each in zip(parts, numbers, strict=True)]
        self.states, self.inputs = self.placement.place_states(program.init, list(learners), inputs)
        self.advance = self.placement.compile(program.advance, self.states)
        self.chunks_until = program.chunks_until
        self.played = self.placement.compile_evaluation(self.evaluator.played)
        self.finals: dict[int, Evaluations] = {}

    def restore(self, paths: Sequence[Any]) -> None:
        """Restores each seed from its checkpoint, except for the learner, which `__init__` has received already.

        A seed whose path is None keeps its initial state. Seeds may be at different points of training, since a run may
        be killed after writing only some of their checkpoints.
        """
        if all(path is None for path in paths):
            return
        restored = []
        for seed, path in enumerate(paths):
            like = self.placement.state(self.states, seed)
            if path is None:
                restored.append(like)
                continue
            parts = {name: part for name, part in like._asdict().items() if name != "learner" and part is not None}
            restored.append(
                like._replace(**{name: checkpoint.restore(path, name, part) for name, part in parts.items()})
            )
        self.states = self.placement.restore_placement(restored, self.states)

    def run(self, interrupted: Callable[[], bool]) -> Iterator[None]:
        """Advances to the end or until `interrupted()`; yields whenever progress can be reported.

        Raises `EnvironmentFault` or `TrainingError` if a seed cannot continue.
        """
        yield
        baseline = device_baselines(self.parts[0], self.config.evaluation.eval_episodes)
        for recorder in self.recorders:
            recorder.begin(partial(baseline, recorder.config))
        for seed in range(len(self.recorders)):
            if self.done(seed):  # trained already when it was restored
                self.finish(self.group_of(seed), seed)
        for group in range(len(self.states)):  # the previous process may have ended before an evaluation that was due
            self.evaluate(group, [seed for seed in self.seeds_of(group) if self.recorders[seed].due()])
        while open_groups := [g for g in range(len(self.states)) if self.open_seeds(g)]:
            # All groups are dispatched before waiting for a result, so that several devices work at once.
            results = {}
            for group in open_groups:
                number = min(self.chunks_until(self.recorders[s].counters) for s in self.open_seeds(group))
                chunks = np.int32(number)  # an array, so that another number does not compile another program
                self.states[group], results[group] = self.advance(self.states[group], self.inputs[group], chunks)
            # Every state has advanced, so all are recorded before a fault in one of them ends the run.
            faults = [fault for group, stats in results.items() for fault in self.account(group, stats)]
            if faults:
                raise faults[0]
            yield
            if interrupted():
                self.save_open()
                return

    def save_open(self) -> None:
        """Writes a checkpoint of each seed that has not had its final evaluation."""
        for seed in range(len(self.recorders)):
            if seed not in self.finals:
                self.save(seed)

    def group_of(self, seed: int) -> int:
        """The group of a seed."""
        return next(group for group in range(len(self.states)) if seed in self.seeds_of(group))

    def seeds_of(self, group: int) -> range:
        """The seeds of a group."""
        return self.placement.seeds_of(group)

    def open_seeds(self, group: int) -> list[int]:
        """The seeds of a group whose training budget is not used up."""
        return [seed for seed in self.seeds_of(group) if not self.done(seed)]

    def done(self, seed: int) -> bool:
        """Whether a seed's training budget is used up."""
        counters = self.recorders[seed].counters
        return self.config.budget.share_done(counters.episode, counters.env_steps) >= 1

    def account(self, group: int, stats: Any) -> list[EnvironmentFault | TrainingError]:
        """Records the statistics of a call for each of its seeds; evaluates and saves the seeds for which it is due.

        **Returns:** the errors that end the run, if any.
        """
        config = self.config
        save, faults, checks = [], [], []
        for seed, own in zip(self.seeds_of(group), self.placement.fetch(stats), strict=True):
            if self.done(seed):
                continue
            recorder, happened = self.recorders[seed], own["happened"]
            counters = recorder.counters
            before = counters.episode, counters.env_steps
            counters.random, counters.episode = int(happened["random"]), int(happened["episode"])
            counters.env_steps += int(happened["env_steps"])
            counters.random_steps = int(happened["random_steps"])
            counters.updates += int(happened["updates"])
            if happened["updates"]:
                recorder.add_updates(own["sums"], int(happened["updates"]))
            recorder.add_returns(float(happened["returns"]), int(happened["returned"]))
            now = counters.episode, counters.env_steps
            if save_due(config, before, now) or self.done(seed):
                save.append(seed)
            number, good_between = int(happened["faults"]), bool(happened["entered"])
            if number:
                checks.append(partial(self.fault, seed, number, good_between, "episodes"))
            elif good_between:
                counters.faults_in_a_row = 0
            if self.done(seed) and self.parts[0].agent.traits.learns_from_replay and not counters.episode:
                faults.append(recorder.untrained())
            checks.append(partial(recorder.watch_divergence, happened["skipped"], happened["divergence"]))
        evaluated = [seed for seed in self.seeds_of(group) if self.recorders[seed].due()]
        for check in (partial(self.evaluate, group, evaluated), *checks):
            try:
                check()
            except (EnvironmentFault, TrainingError) as fault:
                faults.append(fault)
        for seed in save if not faults else []:
            self.save(seed)
            if self.done(seed):
                try:
                    self.finish(group, seed)
                except EnvironmentFault as fault:
                    faults.append(fault)
        return faults

    def fault(self, seed: int, number: int, good_between: bool, what: str) -> None:
        """Counts `number` dropped episodes of a kind; `good_between`: whether a good one has finished as well.

        Raises `EnvironmentFault` after too many dropped episodes in a row.
        """
        fault = f"{self.config.env.id} returned a non-finite observation or reward in {number} {what}"
        self.recorders[seed].add_faults(number, fault, good_between=good_between)

    def evaluate(self, group: int, due: list[int]) -> None:
        """Evaluates a group and writes a row of metrics for each seed in `due`."""
        if not due:
            return
        found = self.evaluations(group, self.config.evaluation.eval_episodes, EVALUATE)
        for seed in due:
            # Reading this waits for the device, but only when a row is due.
            skipped = int(self.placement.state([state.learner.skipped for state in self.states], seed))
            recorder = self.recorders[seed]
            epsilon = newest_epsilon(self.config, self.parts[0].agent.traits, recorder.counters)
            recorder.write_row(found[seed], epsilon, skipped, lambda seed=seed: self.params(seed))

    def evaluations(self, group: int, episodes: int, stream: int) -> dict[int, Evaluations]:
        """Plays `episodes` episodes of each way for each seed of a group; dropped ones are left out and counted.

        Raises `EnvironmentFault` if all episodes of a seed and way, or too many in a row, had to be dropped.
        """
        seeds = []
        for seed in self.seeds_of(group):
            index = (self.recorders[seed].counters.episode,) if stream == EVALUATE else ()
            seed_of = environment_seeds(self.recorders[seed].config.seed, stream, *index)
            seeds.append(self.evaluator.seeds(episodes, seed_of))
        blocks = [
            self.placement.fetch(self.played(self.states[group].learner.params, self.placement.stack_inputs(block)))
            for block in zip(*seeds, strict=True)
        ]
        out = {}
        for i, seed in enumerate(self.seeds_of(group)):
            found = in_ways([block[i] for block in blocks], episodes)
            good = {way: self.without_faults(seed, way, each) for way, each in found.named(False).items()}
            out[seed] = Evaluations(**good)
        return out

    def without_faults(self, seed: int, way: str, found: Evaluation) -> Evaluation:
        """An evaluation without the episodes that had to be dropped, which are counted. Raises `EnvironmentFault`."""
        finite = np.isfinite(found.returns)
        if faults := int(np.sum(~finite)):
            self.fault(seed, faults, bool(finite.any()), f"{way} episodes")
            if not finite.any():
                raise EnvironmentFault(
                    f"{self.config.env.id} returned a non-finite observation or reward in all {faults} {way} episodes"
                )
        return Evaluation(found.returns[finite], found.lengths[finite])

    def params(self, seed: int) -> Any:
        """A seed's current parameters."""
        return self.placement.state([state.learner.params for state in self.states], seed)

    def finish(self, group: int, seed: int) -> None:
        """The final evaluation of a seed, and its summary; no checkpoint contains it, so a resumed run repeats it."""
        self.finals[seed] = self.evaluations(group, self.config.evaluation.final_episodes, FINAL)[seed]
        self.recorders[seed].finish(self.finals[seed])

    def save(self, seed: int) -> None:
        """Writes a checkpoint of a seed's whole state."""
        state = self.placement.state(self.states, seed)
        if not self.placement.first:
            return
        self.recorders[seed].save({name: leaf for name, leaf in state._asdict().items() if leaf is not None})

    def outcomes(self) -> list[Outcome]:
        """The outcome of each seed."""
        return [
            Outcome(self.finals.get(i), recorder.rows, recorder.run_dir, recorder.config)
            for i, recorder in enumerate(self.recorders)
        ]

    def close(self) -> None:
        """Closes the files of the recorders."""
        for recorder in self.recorders:
            recorder.close()
