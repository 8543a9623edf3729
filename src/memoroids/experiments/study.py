"""The trials of a search, kept by Optuna in a file that several processes share."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from memoroids._util.locks import Held, exclusive
from memoroids.experiments.tune_file import Range, TuneFile

JOURNAL = "study.log"
LOCKS = "locks"
STARTUP = 5
"""Trials that are drawn at random before the search learns from them, and before any is ended early."""


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ValueError("memoroids tune needs Optuna: pip install 'memoroids[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@dataclass
class Claim:
    """A trial that this process runs: its number, what it tries, and the values that it has reported, by step."""

    number: int
    found: dict[str, Any]
    trial: Any
    lock: contextlib.ExitStack
    reported: set[int] = field(default_factory=set)

    def report(self, step: int, value: float) -> bool:
        """Reports a value of a step of the trial, once. Returns whether the trial does so badly that it should end."""
        if step not in self.reported:
            self.trial.report(value, step)
            self.reported.add(step)
        return bool(self.trial.should_prune())


class Study:
    """A search: which trials there are, which this process may run next, and which was the best.

    A trial belongs to the process that holds its lock; one whose process has died can be claimed again, with the
    settings that it had. Raises `ValueError` without Optuna.
    """

    def __init__(self, root: Path, tune: TuneFile):
        self.optuna, self.root, self.tune = _optuna(), root, tune
        (root / LOCKS).mkdir(parents=True, exist_ok=True)
        backend = self.optuna.storages.journal.JournalFileBackend(str(root / JOURNAL))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self.optuna.exceptions.ExperimentalWarning)
            sampler = self.optuna.samplers.TPESampler(n_startup_trials=STARTUP, constant_liar=True)
        pruner = self.optuna.pruners.MedianPruner(STARTUP) if tune.prune else self.optuna.pruners.NopPruner()
        with FileLock(root / LOCKS / "study"):
            self._study = self.optuna.create_study(
                storage=self.optuna.storages.JournalStorage(backend),
                study_name=tune.title,
                direction="maximize",
                load_if_exists=True,
                sampler=sampler,
                pruner=pruner,
            )

    def claim(self) -> Claim | None:
        """The next trial for this process: one that was left unfinished, or a new one; None if none is left."""
        state = self.optuna.trial.TrialState
        with FileLock(self.root / LOCKS / "study"):
            trials = self._study.get_trials(deepcopy=False)
            for each in trials:
                if each.state == state.RUNNING and (lock := self._locked(each.number)) is not None:
                    trial = self.optuna.trial.Trial(self._study, each._trial_id)
                    return Claim(each.number, self._suggest(trial), trial, lock, set(each.intermediate_values))
            if len(trials) >= self.tune.trials:
                return None
            trial = self._study.ask()
            lock = self._locked(trial.number)
            assert lock is not None, "nobody else knows this trial yet"
            return Claim(trial.number, self._suggest(trial), trial, lock)

    def finish(self, claim: Claim, value: float | None, *, pruned: bool = False) -> None:
        """Records how a trial ended: with a value, pruned, or failed (None); releases it."""
        state = self.optuna.trial.TrialState
        if value is not None:
            self._study.tell(claim.trial, value)
        else:
            self._study.tell(claim.trial, state=state.PRUNED if pruned else state.FAIL)
        claim.lock.close()

    def running(self) -> int:
        """How many trials have not ended."""
        return len(self._study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.RUNNING,)))

    def rows(self) -> list[dict[str, Any]]:
        """A row for each trial: number, state, value, what it tried."""
        return [
            {"trial": each.number, "state": each.state.name.lower(), "value": "" if each.value is None else each.value}
            | {name: self._value(name, each.params.get(name)) for name in self.tune.search}
            for each in self._study.get_trials(deepcopy=False)
        ]

    def best(self) -> tuple[int, float, dict[str, Any]] | None:
        """The number, the value and the settings of the best trial; None before one has finished."""
        try:
            best = self._study.best_trial
        except ValueError:
            return None
        assert best.value is not None
        return best.number, best.value, {name: self._value(name, each) for name, each in best.params.items()}

    def _locked(self, number: int) -> contextlib.ExitStack | None:
        """The lock of a trial; None if another process, or another slot of this one, holds it."""
        stack = contextlib.ExitStack()
        try:
            stack.enter_context(exclusive(self.root / LOCKS / f"trial{number}"))
        except Held:
            return None
        return stack

    def _suggest(self, trial: Any) -> dict[str, Any]:
        """What a trial tries; for one that has begun already, what it tried."""
        found: dict[str, Any] = {}
        for name, options in self.tune.search.items():
            if not isinstance(options, Range):
                # Optuna keeps numbers, texts and flags only, so a list's values are kept by their positions.
                found[name] = options[trial.suggest_categorical(name, list(range(len(options))))]
            elif options.whole:
                found[name] = trial.suggest_int(
                    name, options.low, options.high, log=options.log, step=int(options.step or 1)
                )
            else:
                found[name] = trial.suggest_float(name, options.low, options.high, log=options.log, step=options.step)
        return found

    def _value(self, name: str, kept: Any) -> Any:
        options = self.tune.search[name]
        return options[kept] if not isinstance(options, Range) and kept is not None else kept


@contextlib.contextmanager
def worker_number(root: Path) -> Iterator[int]:
    """A number that no other process which runs trials in `root` has, the least that is free."""
    (root / LOCKS).mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        number = 0
        while True:
            try:
                stack.enter_context(exclusive(root / LOCKS / f"worker{number}"))
                break
            except Held:
                number += 1
        yield number
