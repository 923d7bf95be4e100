"""Pilots' tasks with GPUs, on real Flux, with its own scheduler and Fluxion; the instance is told of two GPUs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from executors import JobRequest, Outcome, Session
from tests.flux.pilots import Opener, cores, flux, free_cores, holders, stays, wait_for_one_that_is_free
from tests.support.jobs import counted
from tests.support.sessions import agent_pid
from tests.support.waiting import LIMIT, wait_for

GPUS = 2


@pytest.fixture(params=["sched-simple", "Fluxion"])
def scheduler(request: pytest.FixtureRequest) -> dict[str, str]:
    """Variables with which an instance begins with it."""
    if request.param == "sched-simple":
        return {}
    variables: dict[str, str] = request.getfixturevalue("fluxion")
    return variables


@pytest.fixture
def session(scheduler: dict[str, str], pilots: Opener, tmp_path: Path) -> Session:
    """One whose pilots take tasks with GPUs: Flux has given a job one."""
    count = len(os.sched_getaffinity(0))
    if count < 2:
        pytest.skip("needs two cores: each GPU comes with one")
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "resource.toml").write_text(
        f'[resource]\nnoverify = true\n[[resource.config]]\nhosts = "{os.uname().nodename}"\n'
        f'cores = "0-{count - 1}"\ngpus = "0-{GPUS - 1}"\n'
    )
    session = pilots("gpus", variables={**scheduler, "FLUX_CONF_DIR": str(conf)})
    first = session.submit_one(JobRequest(argv=["true"], gpus_per_task=1))
    assert first.result(LIMIT).ok and str(first.id).startswith("f")
    return session


#: Takes its GPUs as directories, so that two tasks cannot have one, and notes which it had.
EXCLUSIVE = (
    'cd {0}; own=$(echo $CUDA_VISIBLE_DEVICES | tr , " "); for gpu in $own; do mkdir $gpu || exit 1; done; '
    "echo $CUDA_VISIBLE_DEVICES >> log; for gpu in $own; do rmdir $gpu; done"
)


def free_gpus(session: Session) -> int:
    return int(flux(session, "resource", "list", "-s", "free", "-no", "{ngpus}").strip() or 0)


def test_a_task_sees_the_gpus_that_flux_gives_its_own_jobs(session: Session) -> None:
    requests = [
        JobRequest(argv=["cat", "/proc/self/environ"], gpus_per_task=2, cores_per_task=2),
        JobRequest(argv=["cat", "/proc/self/environ"], gpus_per_task=2, cores_per_task=2, nodes=1, tasks=1),
        JobRequest(argv=["cat", "/proc/self/environ"]),
    ]
    handles = session.submit(requests)
    assert all(handle.result(LIMIT).ok for handle in handles)
    assert [str(handle.id)[0] for handle in handles] == ["p", "f", "p"]
    texts = [b"".join(handle.output()).decode() for handle in handles]
    ours, flux_own, without = (dict(one.split("=", 1) for one in text.split("\0") if one) for text in texts)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        assert ours[name] == flux_own[name], name
    assert (ours["CUDA_VISIBLE_DEVICES"], without["CUDA_VISIBLE_DEVICES"]) == ("0,1", "-1")


def test_no_gpu_and_no_core_is_promised_twice(session: Session, tmp_path: Path) -> None:
    """Tasks of three shapes, tasks without GPUs, and Flux's own jobs with GPUs."""
    script = ["sh", "-c", EXCLUSIVE.format(tmp_path)]
    one = [JobRequest(argv=script, gpus_per_task=1) for _ in range(60)]
    both = [JobRequest(argv=script, gpus_per_task=2) for _ in range(10)]
    wide = [JobRequest(argv=script, gpus_per_task=1, cores_per_task=2) for _ in range(10)]
    plain = [JobRequest(argv=["true"]) for _ in range(100)]
    own = [JobRequest(argv=script, gpus_per_task=1, nodes=1, tasks=1) for _ in range(5)]
    handles = session.submit([*one, *plain, *both, *own, *wide])
    results = [handle.result(LIMIT * 2) for handle in handles]
    assert all(result.ok for result in results), [result.describe() for result in results if not result.ok]
    assert {str(handle.id)[0] for handle in [*handles[:170], *handles[175:]]} == {"p"}
    assert {str(handle.id)[0] for handle in handles[170:175]} == {"f"}
    assert sorted(set((tmp_path / "log").read_text().split())) == ["0", "0,1", "1"]
    wait_for(lambda: (free_cores(session), free_gpus(session)) == (cores(session), GPUS), "all is Flux's again")


def test_a_holder_that_is_cancelled_takes_its_task_with_it_before_its_gpu_is_free(
    session: Session, tmp_path: Path
) -> None:
    started = [stays(session, tmp_path / str(number), gpus_per_task=1) for number in range(GPUS)]
    assert free_gpus(session) == 0
    flux(session, "cancel", holders(session)[0])
    running = {pid for pids, _ in started for pid in pids}
    wait_for_one_that_is_free(lambda: free_gpus(session), GPUS, running)
    assert [handle.result(0).outcome for _, handle in started if handle.done()] == [Outcome.LOST]


def test_tasks_with_gpus_survive_the_agent(session: Session, tmp_path: Path) -> None:
    go, out = tmp_path / "go", tmp_path / "out"
    script = f"touch {tmp_path}/up.$$; while [ ! -e {go} ]; do sleep 0.02; done; echo ran >> {out}"
    request = JobRequest(argv=["sh", "-c", script], gpus_per_task=1)
    first = session.submit([request] * GPUS)
    wait_for(lambda: len([*tmp_path.glob("up.*")]) == GPUS, "all run")
    waiting = session.submit([counted(out, gpus_per_task=1 + n % GPUS) for n in range(20)])
    wait_for(lambda: all(handle.id for handle in waiting), "they are taken")
    os.kill(agent_pid(session), signal.SIGKILL)
    go.touch()
    results = [handle.result(LIMIT) for handle in [*first, *waiting]]
    assert all(result.ok for result in results), [result.describe() for result in results if not result.ok]
    assert {str(handle.id)[0] for handle in waiting} == {"p"}
    assert out.read_text().count("ran") == GPUS + 20
