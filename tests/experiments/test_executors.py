"""What runs the processes of cells: what is said where an engine is missing, and how jobs of a cluster end.

Grids on a real SLURM and a real Ray are in tests/clusters.
"""

import json
import shutil
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from memoroids.experiments import executors
from memoroids.experiments.cell_launch import ClusterJob, launch
from memoroids.experiments.executors import KILLED, Local, Slurm, _RayTask, _SlurmJob, make_executor


def said(name: str, resources: dict[str, Any], tmp_path: Path) -> str:
    with pytest.raises(ValueError) as error:
        make_executor(name, 2, tmp_path, resources)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_run_cells_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert said("slrum", {}, tmp_path) == "unknown executor 'slrum'; did you mean slurm?"
    assert said("local", {"time": 3}, tmp_path) == "resources are for the executors slurm and ray, got time for local"
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert said("slurm", {}, tmp_path) == "the executor slurm needs submitit: pip install 'memoroids[slurm]'"
    monkeypatch.setitem(sys.modules, "submitit", types.ModuleType("submitit"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    no_sbatch = "the executor slurm needs a machine that submits to SLURM: there is no sbatch here"
    assert said("slurm", {}, tmp_path) == no_sbatch
    monkeypatch.setitem(sys.modules, "ray", None)
    assert said("ray", {}, tmp_path) == "the executor ray needs Ray: pip install 'memoroids[ray]'"
    ray = types.ModuleType("ray")
    ray.is_initialized = lambda: False  # type: ignore[attr-defined]

    def init(**options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    ray.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    no_cluster = "the executor ray finds no cluster: start one with `ray start --head`"
    assert said("ray", {}, tmp_path) == no_cluster
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
place = Path(sys.argv[1])
def leave(number, frame):
    (place / "checkpoint").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, leave)
(place / "seen").write_text(json.dumps([sys.argv[1:], os.environ["JAX_COMPILATION_CACHE_DIR"]]))
time.sleep(600 if (place / "wait").exists() else 0)
print("said")
sys.exit(3)
"""


def test_a_process_gets_its_directories_its_cache_and_a_log(tmp_path: Path):
    process = launch([str(tmp_path), "another"], "the cache", program=PROGRAM)
    assert process.wait() == 3
    assert json.loads((tmp_path / "seen").read_text()) == [[str(tmp_path), "another"], "the cache"]
    assert (tmp_path / "log.txt").read_text() == "said\n"


def test_a_job_that_has_to_leave_its_node_ends_with_a_checkpoint_and_is_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    submitit = types.ModuleType("submitit")
    submitit.helpers = types.SimpleNamespace(DelayedSubmission=lambda task: ("again", task))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "submitit", submitit)
    (tmp_path / "wait").touch()
    job = ClusterJob([str(tmp_path)], "the cache", PROGRAM)
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(job()))
    thread.start()
    while not (tmp_path / "seen").exists():
        pass
    what, task = job.checkpoint()
    thread.join(60)
    assert ended == [130] and (tmp_path / "checkpoint").exists()
    (tmp_path / "wait").unlink()
    assert what == "again" and task is not job and task() == 3


class Job:
    """A job as submitit has it."""

    job_id = "7"

    def __init__(self, place: Path):
        self.paths = types.SimpleNamespace(result_pickle=place / "result")
        self.cancelled = False

    def result(self) -> int:
        return int(self.paths.result_pickle.read_text())

    def cancel(self, check: bool) -> None:
        self.cancelled = True


class Queue:
    """Stands for `Slurm`: what it says of a job, one word for each time that it is asked."""

    def __init__(self, *said: bool):
        self.said = list(said)

    def queued(self, job: str) -> bool:
        assert job == "7"
        return self.said.pop(0)


def test_a_job_of_slurm_ends_with_its_result_or_when_it_has_left_the_queue_for_good(tmp_path: Path):
    found = Job(tmp_path)
    owner: Any = Queue(True, False, True, *[False] * 4)
    job = _SlurmJob(owner, found)
    # It may be missing for a moment while it is put back into the queue, and its result may come late.
    assert [job.poll() for _ in range(7)] == [None] * 6 + [KILLED]
    found.paths.result_pickle.write_text("half a fi")
    owner.said = [False]
    assert job.poll() == KILLED
    found.paths.result_pickle.write_text("1")
    assert job.poll() == 1 and not owner.said
    job.kill()
    assert found.cancelled


def test_slurm_is_asked_for_all_jobs_at_once_and_its_silence_says_nothing(monkeypatch: pytest.MonkeyPatch):
    slurm = object.__new__(Slurm)
    slurm._queue, slurm._looked = set(), 0.0
    answers = [(0, "7\n8\n"), (1, ""), (0, "8\n")]
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> Any:
        asked.append(command)
        code, text = answers[len(asked) - 1]
        return types.SimpleNamespace(returncode=code, stdout=text)

    monkeypatch.setattr(subprocess, "run", run)
    assert slurm.queued("7") and slurm.queued("8") and not slurm.queued("9") and len(asked) == 1
    slurm._looked = 0.0
    assert slurm.queued("7"), "a controller that does not answer has not lost the job"
    slurm._looked = 0.0
    assert not slurm.queued("7") and len(asked) == 3


def test_a_task_of_ray_whose_node_is_lost_was_killed():
    class Cluster:
        ready = False
        result: Any = 0

        def wait(self, references: list[str], timeout: int) -> tuple[list[str], list[str]]:
            return (references, []) if self.ready else ([], references)

        def get(self, reference: str) -> Any:
            if isinstance(self.result, Exception):
                raise self.result
            return self.result

    cluster = Cluster()
    task = _RayTask(cluster, "reference")
    assert task.poll() is None
    cluster.ready = True
    assert task.poll() == 0
    cluster.result = RuntimeError("the node died")
    assert task.poll() == KILLED == -signal.SIGKILL


def test_this_machine_is_the_default():
    local = make_executor("local", 3, Path("nowhere"), {})
    assert isinstance(local, Local) and (local.jobs, local.tries) == (3, 2)
    assert executors.NAMES == ("local", "slurm", "ray")
