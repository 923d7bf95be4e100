"""The contract of jobs and sessions (tests/contract) on Kubernetes: the same tests, in a MiniCluster's pods.

What jobs and tests have in common is a volume at the same path.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from executors import JobRequest, RunId, Session, open_session
from tests.cluster.runs import LIMIT, Runs, runs_on, spec
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.volumes import mounted, volume_of
from tests.contract import (
    test_dead_agents,
    test_engines_agree,
    test_events,
    test_faults,
    test_hostile_clients,
    test_jobs,
    test_keys,
    test_nodes_and_files,
    test_output,
    test_release,
    test_secrets,
)
from tests.support.sessions import Opener

_ON_THIS_MACHINE = "it looks at the instance's directory and processes on this machine; see test_ends.py, test_cuts.py"
_SOCKET = "it speaks on the agent's socket itself, which is in the pod; what it says does not depend on where that is"
#: Tests that say something of this machine only, and why.
LEFT_OUT = {
    **dict.fromkeys(
        [
            "test_nothing_is_left_after_a_session",
            "test_an_idle_instance_without_clients_ends",
            "test_after_kill_9_of_the_client_nothing_outlives_the_orphan_time_out",
            "test_after_kill_9_of_the_client_the_next_one_finds_the_job",
            "test_a_dead_agent_ends_or_resumes_every_job_and_never_lies",
            "test_an_agent_that_dies_at_any_moment_never_makes_a_success",
            "test_what_is_asked_of_a_lost_session_is_refused_at_once",
            "test_jobs_of_an_instance_that_died_do_not_go_on",
            "test_a_dead_instance_tidies_up_without_any_client",
            "test_a_secret_reaches_its_job_and_no_other_place",
            "test_a_job_that_never_starts_leaves_no_secret",
        ],
        _ON_THIS_MACHINE,
    ),
    **dict.fromkeys(
        [
            "test_a_bad_line_is_answered_and_harms_nobody",
            "test_a_bad_request_is_answered_with_its_reason",
            "test_a_hundred_megabyte_line_is_refused_and_harms_nobody",
            "test_a_client_that_vanishes_mid_line_or_mid_reply_harms_nobody",
            "test_a_client_that_never_reads_holds_nobody_up",
            "test_a_slow_client_hears_of_every_end_before_that_of_the_agent",
        ],
        _SOCKET,
    ),
    **dict.fromkeys(
        [
            "test_a_slow_reader_holds_up_neither_the_job_nor_other_jobs_and_fills_no_memory",
            "test_output_that_is_being_read_is_kept_whatever_becomes_of_its_job",
        ],
        "Flux keeps the output of jobs in pods, and takes minutes for as much",
    ),
    "test_a_job_is_over_when_its_tasks_are": "in pods Flux keeps the output, and waits for its end (docs/engines.md)",
    "test_the_forms_are_found_where_they_are": "it has no session",
}
MODULES = (
    test_jobs,
    test_keys,
    test_events,
    test_release,
    test_dead_agents,
    test_hostile_clients,
    test_nodes_and_files,
    test_faults,
    test_secrets,
    test_engines_agree,
    test_output,
)

for module in MODULES:
    found = {name: test for name, test in vars(module).items() if name.startswith("test_") and callable(test)}
    globals().update({name: test for name, test in found.items() if name not in LEFT_OUT})


@pytest.fixture(params=["direct", "operator"], scope="module")
def provisioner(request: pytest.FixtureRequest) -> str:
    if request.param == "operator":
        request.getfixturevalue("operator")
    return str(request.param)


@pytest.fixture(scope="module")
def volume(cluster: Cluster, provisioner: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A namespace, and a directory that its pods share with this machine."""
    # Upstream's pods run as the image's user says; under restricted Pod Security they would not start.
    name = cluster.create_namespace(labels={}) if provisioner == "operator" else cluster.create_namespace()
    with volume_of(cluster, name, tmp_path_factory.mktemp("contract") / "volume") as directory:
        yield name, directory
        cluster.delete_namespace(name)


@pytest.fixture(scope="module")
def contract_runs(
    cluster: Cluster, provisioner: str, volume: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Runs:
    found = runs_on(cluster, volume[0], tmp_path_factory.mktemp("configs"))
    found.provisioner = provisioner
    return found


@pytest.fixture(scope="module")
def opener(contract_runs: Runs, volume: tuple[str, Path]) -> Iterator[Opener]:
    """As in tests/contract: sessions of runs of their own; each is one pod of one core, unless ``cpu`` says more."""
    opened: list[Session] = []

    def open_one(run: str | None = None, *, cpu: str = "100m", **settings: object) -> Session:
        keywords = {k: settings.pop(k) for k in ("auto_acknowledge", "max_in_flight") if k in settings}
        resources = {"requests": {"cpu": cpu}, "limits": {"cpu": "2"}}
        minicluster = spec(contract_runs.image, container={"resources": resources, **mounted(volume[1])})
        config = contract_runs.config(minicluster, **settings)
        # Not "test": the same runs may be on this machine itself now.
        session = open_session(RunId("pods", run or uuid.uuid4().hex[:8]), config, environ={}, **keywords)  # type: ignore[arg-type]
        opened.append(session)
        return session

    yield open_one
    for session in opened:
        session.close()


@pytest.fixture(scope="module")
def session(opener: Opener) -> Session:
    """One session for all tests that do not end it, with two cores (the request, rounded up)."""
    return opener(cpu="1100m")


@pytest.fixture(scope="module")
def engine() -> str:
    return "flux"


@pytest.fixture
def node_name(session: Session) -> str:
    return f"{session.run_name}-0"


@pytest.fixture
def is_alive(session: Session) -> Callable[[int], bool]:
    """In the pod, whose processes have numbers of their own."""

    def look(pid: int) -> bool:
        script = f"case $(ps -o stat= -p {pid}) in Z* | '') exit 1 ;; esac"
        [handle] = session.submit([JobRequest(argv=["sh", "-c", script])])
        return handle.result(LIMIT).ok

    return look


_NUMBERS = count()


@pytest.fixture
def tmp_path(volume: tuple[str, Path]) -> Path:
    """A directory in the volume, in which the pods' user may write."""
    path = volume[1] / f"test-{next(_NUMBERS)}"
    path.mkdir()
    path.chmod(0o777)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def many_lines() -> int:
    """Flux keeps each line of a job in pods as an entry of its database, a quarter of a millisecond each."""
    return 20_000


@pytest.fixture
def moments_of_submitting() -> list[float]:
    """Each is a MiniCluster's start and end."""
    return [0.0, 0.002, 0.005, 0.011]


@pytest.fixture
def moments_of_ending() -> list[float]:
    """A MiniCluster takes a second or two to end."""
    return [0.0, 0.1, 0.4, 1.0]


def test_what_is_left_out_is_there() -> None:
    """A test that was renamed is not left out by its old name."""
    assert set(LEFT_OUT) <= {name for module in MODULES for name in vars(module)}
