"""What runs the processes of cells: what is said where an engine is missing, and how jobs of a cluster end.

Grids on a real SLURM and a real Ray are in tests/clusters.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from memoroids.experiments import executors
from memoroids.experiments.cell_launch import launch
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


LEAVING = """
import os, signal, sys, threading, types
sys.modules["submitit"] = types.ModuleType("submitit")
sys.modules["submitit"].helpers = types.SimpleNamespace(DelayedSubmission=lambda task: task)
from memoroids.experiments.cell_launch import ClusterJob
job = ClusterJob([{place!r}], "the cache", {program!r})
def leave(number, frame):
    again = job.checkpoint()
    print("again", again is not job, again.directories, flush=True)
    os._exit(0)
signal.signal(signal.SIGUSR2, leave)
job()
"""


def test_a_job_that_has_to_leave_its_node_ends_with_a_checkpoint_and_is_submitted_again(tmp_path: Path):
    """As submitit has it: the signal comes while the job waits for its cells."""
    (tmp_path / "wait").touch()
    text = LEAVING.format(place=str(tmp_path), program=PROGRAM)
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "seen").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR2)
        # Far below the grace, after which it would be killed without a checkpoint.
        out, _ = process.communicate(timeout=30)
    assert out == f"again True [{str(tmp_path)!r}]\n" and (tmp_path / "checkpoint").exists()


class Job:
    """A job as submitit has it."""

    job_id = "7"

    def __init__(self, place: Path):
        self.paths = types.SimpleNamespace(result_pickle=place / "result")
        self.cancelled = False

    def result(self) -> int:
        text = self.paths.result_pickle.read_text()
        if text == "half a fi":
            raise EOFError
        if text == "an error":
            raise RuntimeError("Job failed\n  No module named memoroids\n")
        return int(text)

    def cancel(self, check: bool) -> None:
        self.cancelled = True


class Queue:
    """Stands for the answers of `squeue`: exit status and jobs of each; the last one stands for all that follow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, str]):
        self.answers, self.asked = list(answers), 0
        monkeypatch.setattr(subprocess, "run", self._run)
        self.slurm = object.__new__(Slurm)
        self.slurm._queue, self.slurm._answers, self.slurm._looked = set(), 0, 0.0

    def _run(self, command: list[str], **options: Any) -> Any:
        assert command[0] == "squeue"
        code, text = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return types.SimpleNamespace(returncode=code, stdout=text)

    def poll(self, job: _SlurmJob, *, ask: bool = True) -> int | None:
        """Polls a job; with `ask`, when SLURM is to be asked again."""
        if ask:
            self.slurm._looked = 0.0
        return job.poll()


def test_a_job_of_slurm_ends_when_it_has_left_the_queue_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    queue = Queue(monkeypatch, (0, "7\n8\n"), (0, "8\n"), (0, "7\n"), (0, "8\n"))
    found = Job(tmp_path)
    job = _SlurmJob(queue.slurm, found, tmp_path / "log.txt")
    # It may be missing for a moment while it is put back into the queue; it is gone when three answers lack it.
    assert [queue.poll(job) for _ in range(5)] == [None] * 5 and not found.cancelled
    assert [queue.poll(job, ask=False) for _ in range(9)] == [None] * 9 and queue.asked == 5
    assert queue.poll(job) == KILLED and found.cancelled, "what is taken for lost must not go on"


SUBMITTING = """
import os, signal, subprocess, sys, time, types
from pathlib import Path
from memoroids.experiments import runner
from memoroids.experiments.executors import Slurm
place = Path({place!r})

def sbatch(wait):
    return subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({{wait}}); print('answered')"], stdout=-1)

def submit(task):
    child = sbatch(0.5)
    time.sleep(0.2)
    os.killpg(0, signal.{name})  # as a terminal does, to all processes of the command
    assert child.communicate()[0] == b"answered\\n"
    return types.SimpleNamespace(cancel=cancel)

def cancel(check):
    child = sbatch(0.5)
    os.killpg(0, signal.SIGINT)  # pressed again
    (place / "cancelled").write_bytes(child.communicate()[0])

slurm = object.__new__(Slurm)
slurm._executor = types.SimpleNamespace(submit=submit)
try:
    with runner.terminating(lambda: []):
        slurm.start([place], 0, place)
except KeyboardInterrupt:
    (place / "interrupted").touch()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_amid_a_submission_leaves_no_job(name: str, tmp_path: Path):
    text = SUBMITTING.format(place=str(tmp_path), name=name)
    subprocess.run([sys.executable, "-c", text], check=True, start_new_session=True)
    assert (tmp_path / "cancelled").read_text() == "answered\n" and (tmp_path / "interrupted").exists()


def test_a_queue_that_does_not_answer_loses_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    queue = Queue(monkeypatch, (1, ""))
    queue.slurm._queue.add("7")  # as when it was submitted
    job = _SlurmJob(queue.slurm, Job(tmp_path), tmp_path / "log.txt")
    assert [queue.poll(job) for _ in range(9)] == [None] * 9 and queue.asked == 9


def test_the_result_of_a_job_counts_whatever_the_queue_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    queue = Queue(monkeypatch, (0, ""))
    found = Job(tmp_path)
    job = _SlurmJob(queue.slurm, found, tmp_path / "log.txt")
    found.paths.result_pickle.write_text("half a fi")
    assert queue.poll(job) is None
    found.paths.result_pickle.write_text("3")
    assert queue.poll(job) == 3
    found.paths.result_pickle.write_text("an error")
    assert queue.poll(job) == 1
    assert (tmp_path / "log.txt").read_text().splitlines()[-1] == "No module named memoroids"


def test_resources_of_the_wrong_kind_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    submitit, ray = types.ModuleType("submitit"), types.ModuleType("ray")
    ray.is_initialized = lambda: True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "submitit", submitit)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    text = "the resource time must be a number of minutes, got '2:00:00'"
    assert said("slurm", {"time": "2:00:00"}, tmp_path) == text
    assert said("ray", {"memory": "8G"}, tmp_path) == "the resource memory must be a number, got '8G'"


def test_a_task_of_ray_whose_node_is_lost_was_killed_and_one_that_raises_has_failed(tmp_path: Path):
    class Cluster:
        exceptions = types.SimpleNamespace(RayTaskError=LookupError)
        ready = False
        result: Any = 0

        def wait(self, references: list[str], timeout: int) -> tuple[list[str], list[str]]:
            return (references, []) if self.ready else ([], references)

        def get(self, reference: str) -> Any:
            if isinstance(self.result, Exception):
                raise self.result
            return self.result

    cluster = Cluster()
    task = _RayTask(cluster, "reference", tmp_path / "log.txt")
    assert task.poll() is None
    cluster.ready = True
    assert task.poll() == 0
    cluster.result = RuntimeError("the node died")
    assert task.poll() == KILLED == -signal.SIGKILL
    cluster.result = LookupError("no such module")
    assert task.poll() == 1 and (tmp_path / "log.txt").read_text() == "no such module\n"


def test_this_machine_is_the_default():
    local = make_executor("local", 3, Path("nowhere"), {})
    assert isinstance(local, Local) and (local.jobs, local.tries) == (3, 2)
    assert executors.NAMES == ("local", "slurm", "ray")
