"""Environments that misbehave, in this process and in others: only the faulty episode is dropped."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faulty
from memoroids.acting.host_collection import Collector, Ended, Episode
from memoroids.acting.policies import RandomPolicy
from memoroids.envs import EnvironmentFault, HostEnv
from memoroids.envs.host import processes as processes_module
from memoroids.envs.host import vector as vector_module
from memoroids.envs.host.processes import ProcessEnvs
from memoroids.envs.host.vector import HostEnvs, LocalEnvs

LIMIT = 3.0
EPISODES = 20


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(faulty.__file__).parent))


@pytest.fixture
def made() -> Iterator[Callable[..., HostEnvs]]:
    """Makes environments in any number of processes, and closes them after the test."""
    all_: list[HostEnvs] = []

    def make(processes: int, num_envs: int = 3, limit: float = LIMIT, **options: Any) -> HostEnvs:
        settings = {"options": options, "check_bounds": True}
        if processes:
            found: HostEnvs = ProcessEnvs(faulty.NAME, settings, num_envs, processes=processes, time_limit=limit)
        else:
            envs = [HostEnv(faulty.NAME, **settings) for _ in range(num_envs)]
            found = LocalEnvs(envs, time_limit=limit)
        all_.append(found)
        return found

    yield make
    for envs in all_:
        envs.close()


def played(envs: HostEnvs, ended: Ended | None = None) -> list[Episode]:
    """Collected episodes, each seeded by its number."""
    return list(Collector(envs, RandomPolicy(3, 0), lambda number: number, 0, EPISODES, ended=ended))


def noted(said: list[str]) -> Ended:
    """Records the messages of faults."""
    return lambda fault: said.append(str(fault)) if fault else None


def assert_same(found: list[Episode], expected: list[Episode]) -> None:
    assert [one.number for one in found] == [one.number for one in expected]
    for mine, theirs in zip(found, expected, strict=True):
        for a, b in zip(vars(mine.tape).values(), vars(theirs.tape).values(), strict=True):
            np.testing.assert_array_equal(a, b)


def whole(made: Callable[..., HostEnvs], spoiled: set[int]) -> list[Episode]:
    """The expected episodes if some are faulty: those are left out, and as many are added at the end."""
    healthy = list(Collector(made(0), RandomPolicy(3, 0), lambda number: number, 0, EPISODES + 10))
    return [one for one in healthy if one.number not in spoiled][:EPISODES]


def test_episodes_do_not_depend_on_the_number_of_processes(made: Callable[..., HostEnvs]):
    expected = whole(made, set())
    for processes in (0, 1, 2, 3, 5):
        assert_same(played(made(processes)), expected)


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("fault", faulty.FAULTS)
def test_an_episode_that_is_spoiled_goes_whole_and_all_others_stay(fault: str, at: int, made: Callable[..., HostEnvs]):
    if at == 0 and fault in ("reward", "nan reward", "flag", "few", *faulty.REWARDS):
        pytest.skip("this fault cannot occur at a reset")
    limit, every = (0.3, 10) if fault in ("hang", "swallow") else (LIMIT, 5)
    said: list[str] = []
    found = played(made(0, limit=limit, fault=fault, at=at, every=every), noted(said))
    spoiled = {number for number in range(EPISODES + 8) if number % every == 0}
    assert_same(found, whole(made, spoiled))
    assert {int(line.split()[1].rstrip(":")) for line in said} <= spoiled and len(said) >= EPISODES // every
    assert all(faulty.NAME in line and "\n" not in line for line in said)


def test_every_end_of_an_episode_is_told_in_the_order_of_the_ends(made: Callable[..., HostEnvs]):
    told: list[bool] = []
    played(made(0, num_envs=1, fault="raise", every=3), lambda fault: told.append(fault is None))
    assert told == [number % 3 != 0 for number in range(len(told))] and sum(told) == EPISODES
    told.clear()
    with pytest.raises(ValueError, match="enough"):

        def ended(fault: EnvironmentFault | None) -> None:
            told.append(fault is None)
            if len(told) == 5:
                raise ValueError("enough")

        played(made(0, fault="raise", every=1), ended)
    assert told == [False] * 5


# One case of a hanging process is enough: each has to wait for the time limit.
@pytest.mark.parametrize(("fault", "processes"), [("freeze", 2), *itertools.product(("exit", "raise"), (1, 2, 3))])
def test_a_process_that_dies_or_hangs_costs_one_episode_and_no_other(
    fault: str, processes: int, made: Callable[..., HostEnvs]
):
    said: list[str] = []
    found = played(made(processes, fault=fault, every=13, rest=6), noted(said))
    assert_same(found, whole(made, {6, 19}))
    words = {"exit": "exit status 3 at step 2", "freeze": "did not answer within 3 s", "raise": "simulator is gone"}
    assert len(said) == 2 and all(words[fault] in line for line in said)
    assert said[0].startswith("episode 6: ")


def test_a_process_killed_from_outside_is_restarted(made: Callable[..., HostEnvs]):
    envs = made(1)
    assert isinstance(envs, ProcessEnvs)
    said: list[str] = []
    collector = Collector(
        envs,
        RandomPolicy(3, 0),
        lambda number: number,
        0,
        EPISODES,
        ended=noted(said),
    )
    found = []
    for episode in collector:
        found.append(episode)
        if episode.number == 4:
            running = envs._processes[0]
            assert running is not None
            os.kill(running[0].pid, signal.SIGKILL)
    lost = {int(line.split()[1].rstrip(":")) for line in said}
    assert len(lost) == 1 and "exit status -9" in said[0]
    assert_same(found, whole(made, lost))


def test_processes_leave_signals_to_the_run(made: Callable[..., HostEnvs]):
    envs = made(2)
    assert isinstance(envs, ProcessEnvs)
    expected = whole(made, set())
    said: list[str] = []
    found = []
    for episode in Collector(envs, RandomPolicy(3, 0), lambda number: number, 0, EPISODES, ended=noted(said)):
        found.append(episode)
        for running in envs._processes:
            assert running is not None
            for number in (signal.SIGTERM, signal.SIGINT):  # as when they are sent to the process group
                os.kill(running[0].pid, number)
    assert_same(found, expected)
    assert said == []


def test_a_process_that_hangs_in_c_ends_with_the_run():
    code = f"""
import os, signal, time
from memoroids.envs.host.processes import ProcessEnvs
envs = ProcessEnvs({faulty.NAME!r}, {{"options": {{"fault": "deaf", "every": 1}}}}, 1, processes=1, time_limit=60)
envs.reset(0, 0)
print(envs._processes[0][0].pid, flush=True)
envs._send(0, [(0, "step", 0), (0, "step", 0)])
time.sleep(1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(faulty.__file__), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the process outlived the run")


@pytest.mark.parametrize("processes", [0, 1])
def test_an_environment_that_cannot_be_closed_keeps_no_other_from_it(
    processes: int, made: Callable[..., HostEnvs], monkeypatch: pytest.MonkeyPatch
):
    closed: list[Any] = []

    def close(self: Any) -> None:
        closed.append(self)
        raise RuntimeError("the simulator is gone")

    monkeypatch.setattr(faulty.Faulty, "close", close)
    envs = made(processes)
    envs.close()
    assert len(closed) == (1 if processes else len(envs))


def test_a_process_that_cannot_make_its_environments_is_reported(made: Callable[..., HostEnvs], tmp_path: Path):
    envs = ProcessEnvs(faulty.NAME, {"options": {}}, 2, processes=1, time_limit=LIMIT)
    envs._made_with = faulty.NAME, {"options": {"no_such": 1}}
    with pytest.raises(EnvironmentFault, match=r"cannot start an environment process: .*no_such"):
        envs.reset(0, 0)
    envs.close()


def test_closing_ends_every_process(made: Callable[..., HostEnvs]):
    envs = made(2)
    assert isinstance(envs, ProcessEnvs)
    played(envs)
    pids = [running[0].pid for running in envs._processes if running is not None]
    assert len(pids) == 2
    envs.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_alarm_of_somebody_else_is_given_back(made: Callable[..., HostEnvs]):
    def mine(number: int, frame: Any) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGALRM, mine)
    try:
        played(made(0))
        assert signal.getsignal(signal.SIGALRM) is mine
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_episodes_are_collected_in_other_threads_too(made: Callable[..., HostEnvs]):
    found: list[Episode] = []
    thread = threading.Thread(target=lambda: found.extend(played(made(0))))
    thread.start()
    thread.join()
    assert_same(found, whole(made, set()))


@pytest.mark.parametrize("processes", [0, 2])
def test_systems_without_alarms_and_signal_masks_collect_the_same_episodes(
    processes: int, made: Callable[..., HostEnvs], monkeypatch: pytest.MonkeyPatch
):
    expected = whole(made, set())
    without = {name: value for name, value in vars(signal).items() if name not in ("setitimer", "pthread_sigmask")}
    for module in (processes_module, vector_module):
        monkeypatch.setattr(module, "signal", types.SimpleNamespace(**without))
    assert_same(played(made(processes)), expected[:EPISODES])
