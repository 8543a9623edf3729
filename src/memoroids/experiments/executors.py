"""What runs the processes of cells: this machine, SLURM (by submitit) or Ray. A grid is the same on each of them."""

import contextlib
import logging
import pickle
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from memoroids._util.messages import suggest
from memoroids.experiments import cell_launch
from memoroids.experiments.cell_launch import ClusterJob, cores_of, launch

NAMES = ("local", "slurm", "ray")
KILLED = -int(signal.SIGKILL)


class Refused(ValueError):
    """Raised if an engine does not take another process now."""


class Handle(Protocol):
    """A process of cells, wherever it is."""

    def poll(self) -> int | None:
        """Its exit status; None while it has not ended. Negative: it was ended from outside."""
        ...

    def kill(self) -> None:
        """Ends it."""
        ...

    def wait(self) -> Any:
        """Waits until it has ended."""
        ...


class Executor(Protocol):
    """Starts processes of cells, `jobs` of them at a time; `tries`: how often one that is ended from outside."""

    jobs: int
    tries: int

    def start(self, directories: Sequence[Path], slot: int, cache: Path) -> Handle:
        """Starts the process of the cells in `directories`, in a slot from 0 to `jobs` - 1. Raises `Refused`."""
        ...


class Local:
    """Processes on this machine, each with an equal share of its processor cores."""

    tries = 2

    def __init__(self, jobs: int):
        self.jobs = jobs

    def start(self, directories: Sequence[Path], slot: int, cache: Path) -> Handle:
        """Starts a process."""
        return launch([str(each) for each in directories], str(cache), cores_of(slot, self.jobs))


class _SlurmJob:
    """A job of SLURM, which ends with a result, or when SLURM says more than once that it is not in the queue."""

    def __init__(self, owner: "Slurm", job: Any, log: Path):
        self._owner, self._job, self._log = owner, job, log
        self._missing: set[int] = set()

    def poll(self) -> int | None:
        if self._job.paths.result_pickle.exists():
            try:
                return int(self._job.result())
            except (EOFError, OSError, pickle.UnpicklingError):  # it is still being written
                pass
            except Exception as error:  # of the job, before or after the cell
                return _failed(self._log, error)
        queued, answer = self._owner.queued(self._job.job_id)
        if queued:
            self._missing.clear()
            return None
        # The file of its result may come a moment after the job has left the queue.
        self._missing.add(answer)
        if len(self._missing) < 3:
            return None
        self.kill()
        return KILLED

    def kill(self) -> None:
        self._job.cancel(check=False)

    def wait(self) -> None:
        """Returns at once: what SLURM has been told to cancel will end."""


_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def _recorded() -> Iterator[list[int]]:
    """Keeps Ctrl-C and SIGTERM from ending what this process does; yields the list of those that came."""
    came: list[int] = []
    handlers = [signal.signal(number, lambda number, frame: came.append(number)) for number in _ENDING]
    try:
        yield came
    finally:
        for number, handler in zip(_ENDING, handlers, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _spared() -> Iterator[None]:
    """Keeps Ctrl-C and SIGTERM from the processes that are started inside, which a terminal signals as well."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # which they inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _failed(log: Path, error: Exception) -> int:
    """Writes why a job failed to the log of its cell, where the reason of a failure is looked up."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    with contextlib.suppress(OSError), log.open("a") as file:
        file.write("\n".join(lines) + "\n")
    return 1


class Slurm:
    """Jobs of SLURM, one for each process of cells, submitted by submitit from a machine that has `sbatch`.

    A job that is preempted, or whose node is lost, is put back into the queue by SLURM and goes on from its newest
    checkpoint. `resources`: options of `sbatch` by their names. Raises `ValueError` without submitit or SLURM.
    """

    tries = 10

    def __init__(self, jobs: int, folder: Path, resources: dict[str, Any]):
        try:
            import submitit  # pyright: ignore[reportMissingImports]: an extra
        except ImportError as error:
            raise ValueError("the executor slurm needs submitit: pip install 'memoroids[slurm]'") from error
        if missing := [name for name in ("sbatch", "squeue") if shutil.which(name) is None]:
            raise ValueError(f"the executor slurm needs a machine that submits to SLURM: there is no {missing[0]} here")
        logging.getLogger("submitit").setLevel(logging.ERROR)
        minutes = resources.get("time", 24 * 60)
        if not isinstance(minutes, int) or isinstance(minutes, bool) or minutes < 1:
            raise ValueError(f"the resource time must be a number of minutes, got {minutes!r}")
        self.jobs = jobs
        self._executor = submitit.SlurmExecutor(folder.absolute(), max_num_timeout=1_000)
        options = {name.replace("_", "-"): value for name, value in resources.items() if name != "time"}
        self._executor.update_parameters(
            job_name="memoroids", time=minutes, use_srun=False, additional_parameters={"requeue": True} | options
        )
        self._queue: set[str] = set()
        self._answers = 0
        self._looked = 0.0

    def start(self, directories: Sequence[Path], slot: int, cache: Path) -> Handle:
        """Submits a job. Raises `Refused` with SLURM's words if it is refused."""
        task = ClusterJob(
            [str(each.absolute()) for each in directories], str(cache.absolute()), cell_launch.CELL_PROGRAM
        )
        job = self._submitted(task)
        self._queue.add(job.job_id)
        return _SlurmJob(self, job, directories[0] / cell_launch.LOG)

    def _submitted(self, task: ClusterJob) -> Any:
        """Submits a job. Ctrl-C amid it waits for SLURM's answer, so that no job is left of which nobody knows."""
        with _recorded() as pressed:
            try:
                with _spared():
                    job = self._executor.submit(task)
            except Exception as error:  # submitit has errors of its own, and passes on those of sbatch
                if pressed:
                    raise KeyboardInterrupt from error
                words = " ".join(str(error).split())
                raise Refused(f"SLURM refuses a job: {words} (--resources has options of sbatch)") from error
            if pressed:
                with _spared():
                    job.cancel(check=False)
                raise KeyboardInterrupt
        return job

    def queued(self, job: str) -> tuple[bool, int]:
        """Whether a job waits or runs, and the number of the answer that says so.

        SLURM is asked once in two seconds for all jobs; as long as it does not answer, the last answer stands.
        """
        if time.monotonic() - self._looked > 2:
            said = subprocess.run(
                ["squeue", "--me", "--noheader", "--format=%i"], capture_output=True, text=True, check=False
            )
            if said.returncode == 0:
                self._queue, self._answers = set(said.stdout.split()), self._answers + 1
            self._looked = time.monotonic()
        return job in self._queue, self._answers


class _RayTask:
    """A task of Ray."""

    def __init__(self, ray: Any, reference: Any, log: Path):
        self._ray, self._reference, self._log = ray, reference, log

    def poll(self) -> int | None:
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return int(self._ray.get(self._reference))
        except self._ray.exceptions.RayTaskError as error:  # of the task, before or after the cell
            return _failed(self._log, error)
        except Exception:  # its node or its worker is gone, or it was cancelled
            return KILLED

    def kill(self) -> None:
        self._ray.cancel(self._reference, force=True)

    def wait(self) -> None:
        self._ray.wait([self._reference], timeout=30)


class Ray:
    """Tasks of a Ray cluster, one for each process of cells.

    `resources`: what each needs, `num_cpus` (1 unless given), `num_gpus`, which may be a fraction, or a resource that
    the cluster's nodes declare. A task whose node is lost is started again, on another one. Raises `ValueError` without
    Ray or a cluster.
    """

    tries = 10

    def __init__(self, jobs: int, resources: dict[str, Any]):
        try:
            import ray  # pyright: ignore[reportMissingImports]: an extra
        except ImportError as error:
            raise ValueError("the executor ray needs Ray: pip install 'memoroids[ray]'") from error
        try:
            if not ray.is_initialized():
                ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise ValueError("the executor ray finds no cluster: start one with `ray start --head`") from error
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "max_retries": 0, "resources": {}}
        for name, value in resources.items():
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise ValueError(f"the resource {name} must be a number, got {value!r}")
            (options if name in ("num_cpus", "num_gpus") else options["resources"])[name] = value
        self.jobs, self._ray = jobs, ray
        self._remote = ray.remote(**options)(_run_job)

    def start(self, directories: Sequence[Path], slot: int, cache: Path) -> Handle:
        """Starts a task."""
        task = [str(each.absolute()) for each in directories], str(cache.absolute()), cell_launch.CELL_PROGRAM
        return _RayTask(self._ray, self._remote.remote(*task), directories[0] / cell_launch.LOG)


def _run_job(directories: Sequence[str], cache: str, program: str) -> int:
    return ClusterJob(directories, cache, program)()


def make_executor(name: str, jobs: int, root: Path, resources: dict[str, Any]) -> Executor:
    """The executor of that name. Raises `ValueError` for another name, and where its engine is missing."""
    if name == "local":
        if resources:
            raise ValueError(f"resources are for the executors slurm and ray, got {min(resources)} for local")
        return Local(jobs)
    if name == "slurm":
        return Slurm(jobs, root / "slurm", resources)
    if name == "ray":
        return Ray(jobs, resources)
    raise ValueError(f"unknown executor {name!r}{suggest(name, NAMES)}")
