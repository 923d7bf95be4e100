"""Starts the tasks of a job as processes of this machine, as Flux's shell would: their files, environment and GPUs."""

from __future__ import annotations

import errno
import logging
import os
import stat
import subprocess
from contextlib import contextmanager
from typing import IO, Dict, Iterator, List, Mapping, Optional, Set, Tuple

from ..wire import EPOCH_VARIABLE, USAGE_VARIABLE, epoch_chain
from .job import LocalJob

log = logging.getLogger(__name__)

#: Stdout and stderr, which may be one file.
Outputs = Tuple[IO[bytes], IO[bytes]]


@contextmanager
def open_outputs(job: LocalJob) -> Iterator[Outputs]:
    """The job's files, open while its tasks are started. Raises OSError, with the file that cannot be opened."""
    mode = "ab" if job.plan.append else "wb"
    with _open_for_job(job.paths[0], mode) as stdout:
        if job.paths[1] == job.paths[0]:
            yield stdout, stdout
        else:
            with _open_for_job(job.paths[1], mode) as stderr:
                yield stdout, stderr


def environment(job: LocalJob, epoch: str, hides_gpus: bool, environ: Mapping[str, str]) -> Dict[str, str]:
    """What all tasks of a job have in their environment: its own, its secrets, and what Flux's shell sets.

    ``epoch`` marks the processes of this engine; ``environ`` is the engine's own environment.
    """
    env = dict(job.plan.env)
    env.update(job.secret_env)
    env.update(FLUX_JOB_ID=job.id, FLUX_JOB_SIZE=str(job.plan.tasks), FLUX_JOB_NNODES="1")
    env[EPOCH_VARIABLE] = epoch_chain(epoch, environ)
    env[USAGE_VARIABLE] = job.usage_path
    if hides_gpus and job.plan.gpu_affinity != "off":
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, job.gpus)) or "-1"
    return env


def start_task(job: LocalJob, rank: int, env: Dict[str, str], outputs: Outputs, cpus: Optional[Set[int]] = None) -> int:
    """Start one task; its pid, whose status the caller takes. Raises OSError, and ValueError for a null byte.

    ``cpus``: those that it may run on; None: all that this program may.
    """
    task_env = dict(env, FLUX_TASK_RANK=str(rank), FLUX_TASK_LOCAL_ID=str(rank))
    if job.gpus and job.plan.gpu_affinity == "per-task":
        share = max(1, len(job.gpus) // job.plan.tasks)
        task_env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, job.gpus[rank * share : (rank + 1) * share]))
    if cpus:
        with _bound_to(cpus):
            process = _popen(job.plan.command, job.plan.cwd, task_env, outputs)
    else:
        process = _popen(job.plan.command, job.plan.cwd, task_env, outputs)
    # The status is taken by pid when the pidfd tells of the end; the object must not want it too.
    process.returncode = 0
    return process.pid


def take_usage(job: LocalJob) -> None:
    """Add to a job's usage what its own processes have told of others' (`wire.USAGE_VARIABLE`).

    Any program of the job can have written there, or put something else there: it is none of the job's end.
    """
    try:
        # A pipe would be waited for.
        fd = os.open(job.usage_path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="ascii", errors="replace") as lines:
            told = [line.split() for line in lines] if stat.S_ISREG(os.fstat(fd).st_mode) else []
        os.unlink(job.usage_path)
    except FileNotFoundError:
        return
    except OSError as err:
        log.warning("what job %s has used is not known: %s", job.id, err)
        return
    for words in told:
        try:
            _, cpu, memory, _ = words
            used, size = float(cpu), int(memory) * 1024
        except ValueError:
            continue
        job.cpu += used
        job.max_rss = max(job.max_rss, size)


@contextmanager
def _bound_to(cpus: Set[int]) -> Iterator[None]:
    """Have what this thread starts run on these CPUs. A child inherits them; Popen has no word for it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _popen(command: List[str], cwd: str, env: Dict[str, str], outputs: Outputs) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=outputs[0], stderr=outputs[1],
            cwd=cwd, env=env, start_new_session=True,
        )  # fmt: skip
    except OSError as err:
        if err.errno != errno.ENOEXEC:
            raise
        import shutil  # costs an agent's start some milliseconds, and is for these scripts only

        # A script without "#!" is one for sh: execvp(3), and so Flux.
        script = shutil.which(command[0], path=env.get("PATH", os.defpath)) or command[0]
        return _popen(["/bin/sh", script, *command[1:]], cwd, env, outputs)


def _open_for_job(path: str, mode: str) -> IO[bytes]:
    """A file for a job's output; a FIFO without a reader is an error, not a wait for one."""

    def without_waiting(name: str, flags: int) -> int:
        fd = os.open(name, flags | os.O_NONBLOCK, 0o666)
        os.set_blocking(fd, True)
        return fd

    return open(path, mode, buffering=0, opener=without_waiting)
