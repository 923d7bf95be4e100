"""The pure parts of the command ``flux``: ids, results, places, environments, Nextflow's configuration, the table."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors import RunConfig, load_config
from executors.flux_command import burial, ending, environment, ingest, records, settings, values
from executors.flux_command.arguments import read
from executors.flux_command.asked import Submit
from executors.flux_command.ids import base58, task_id
from executors.flux_command.placing import NeverFits, Node, cores_for, nodes_of
from executors.flux_command.settling import reason_of, sentence
from executors.results import JobException, JobResult, NodeInfo, Outcome, Times

# -- ids


def test_ids_of_flux_are_left_as_they_are() -> None:
    assert task_id("f66iZkEK") == "f66iZkEK"


@given(st.integers(0, 0xFFFF), st.integers(1, 2**32), st.integers(1, 2**32))
def test_ids_of_the_embedded_engine_are_different_and_begin_with_f(epoch: int, one: int, other: int) -> None:
    first, second = task_id(f"e{epoch:04x}-{one}"), task_id(f"e{epoch:04x}-{other}")
    assert first.startswith("f") and first.isalnum()
    assert (first == second) == (one == other)


def test_base58_is_as_flux_writes_it() -> None:
    assert (base58(0), base58(57), base58(58)) == ("1", "z", "21")
    with pytest.raises(ValueError):
        base58(-1)
    with pytest.raises(ValueError):
        task_id("job 1")


# -- results


@pytest.mark.parametrize(
    ("content", "returncode", "started", "why", "written"),
    [
        (b"0", 0, True, None, None),
        (b"7", 7, True, None, None),
        (b"7\n", None, True, ending.LOST, None),
        (b"143", 143, True, ending.LIMIT, None),
        # The wrapper exited with 0 at the limit, all the same.
        (b"0", 0, True, ending.LIMIT, None),
        # Its EXIT trap wrote what nobody had set.
        (b"0", 142, True, None, 142),
        (b"0", 129, True, ending.LIMIT, 143),
        (b"0", None, True, ending.LOST, 143),
        # It has only begun to write.
        (b"", 137, True, None, 137),
        (None, 137, True, None, 137),
        (None, 143, True, ending.LIMIT, 143),
        (None, 137, True, ending.LIMIT, 143),
        (None, None, False, ending.CANCELLED, 143),
        (None, None, True, ending.LOST, 143),
        (None, None, False, None, 1),
        (None, 0, True, None, 1),
        (None, 5, True, None, 5),
        (b"rubbish", 137, True, None, 137),
    ],
)
def test_what_is_written_into_a_result_file(
    content: bytes | None, returncode: int | None, started: bool, why: str | None, written: int | None
) -> None:
    assert ending.to_write(content, returncode, started, why) == written


@given(
    st.none() | st.binary(max_size=4),
    st.none() | st.integers(0, 255),
    st.booleans(),
    st.sampled_from([None, ending.LIMIT, ending.CANCELLED, ending.LOST]),
)
def test_a_failure_that_is_recorded_is_never_overwritten_and_no_success_is_made_up(
    content: bytes | None, returncode: int | None, started: bool, why: str | None
) -> None:
    written = ending.to_write(content, returncode, started, why)
    if ending.recorded(content) not in (None, 0):
        assert written is None
    assert written != 0
    if written is None:
        assert ending.recorded(content) is not None


@pytest.mark.parametrize(
    ("ours", "result", "why"),
    [
        (ending.LIMIT, JobResult(Outcome.CANCELLED), ending.LIMIT),
        (None, JobResult(Outcome.TIMEOUT), ending.LIMIT),
        (None, JobResult(Outcome.CANCELLED), ending.CANCELLED),
        (None, JobResult(Outcome.LOST), ending.LOST),
        (None, JobResult(Outcome.UNKNOWN, times=Times(start=1.0)), ending.LOST),
        (None, JobResult(Outcome.UNKNOWN), None),
        (None, JobResult(Outcome.FAILED, returncode=3), None),
        (None, JobResult(Outcome.SIGNALED, returncode=137, signal=9), None),
    ],
)
def test_why_a_job_was_ended(ours: str | None, result: JobResult, why: str | None) -> None:
    assert reason_of(ours, result) == why


def test_a_sentence_says_how_a_job_ended_where_its_wrapper_could_not() -> None:
    lost = JobResult(Outcome.LOST, node="n1", exception=JobException("exec", "lost contact"))
    assert sentence("f1", lost, None) == "job f1 was lost on n1: lost contact"
    assert "memory" in sentence("f1", JobResult(Outcome.SIGNALED, returncode=137, signal=9), None)
    assert "memory" not in sentence("f1", JobResult(Outcome.LOST, returncode=137, signal=9), None)
    assert sentence("f1", JobResult(Outcome.COMPLETED, returncode=0), None) == ""


# -- where a task can run

NODES = [Node(8, 0, 32 * 2**30), Node(4, 2, 8 * 2**30)]


@pytest.mark.parametrize(
    ("cores", "gpus", "memory", "given"),
    [(1, 0, None, 1), (8, 0, None, 8), (1, 0, 2**30, 1), (1, 0, 5 * 2**30, 3), (2, 0, 32 * 2**30, 8), (1, 2, None, 1)],
)
def test_cores_stand_for_memory(cores: int, gpus: int, memory: int | None, given: int) -> None:
    assert cores_for(cores, gpus, memory, NODES) == given


@pytest.mark.parametrize(
    ("cores", "gpus", "memory", "text"),
    [
        (9, 0, None, "cpus 9"),
        (1, 3, None, "accelerator 3"),
        (8, 1, None, "accelerator 1"),
        (1, 0, 2**40, "memory 1048576 MB"),
    ],
)
def test_what_no_node_has_is_refused(cores: int, gpus: int, memory: int | None, text: str) -> None:
    with pytest.raises(NeverFits, match=text):
        cores_for(cores, gpus, memory, NODES)


GIB = 2**30
GPU_NODE = [Node(64, 0, 256 * GIB), Node(16, 4, 128 * GIB)]
HIMEM = [Node(64, 0, 128 * GIB), Node(32, 0, 1024 * GIB)]


@pytest.mark.parametrize(
    ("nodes", "cores", "gpus", "memory", "given"),
    [
        (GPU_NODE, 4, 1, 100 * GIB, 13),  # of the node with GPUs
        (GPU_NODE, 4, 0, 100 * GIB, 25),  # on either it has its memory
        (GPU_NODE, 4, 0, 200 * GIB, 50),
        (HIMEM, 32, 0, 500 * GIB, 32),  # the other node could take it, and no number of cores says otherwise
        (HIMEM, 1, 0, 100 * GIB, 50),
        ([Node(4, 0, 8 * GIB), Node(16, 0, 64 * GIB)], 2, 0, 12 * GIB, 5),  # more than the small one has
    ],
)
def test_where_nodes_differ_those_count_that_can_take_the_task(
    nodes: list[Node], cores: int, gpus: int, memory: int, given: int
) -> None:
    assert cores_for(cores, gpus, memory, nodes) == given


def test_no_memory_said_and_all_of_a_nodes_are_no_limit() -> None:
    for option in ("--mem=0", "--mem-per-cpu=0"):
        asked = read(["submit", "--setattr=cwd=/w", '--job-name="nf-A"', option, "/bin/bash", ".command.run"])
        assert isinstance(asked, Submit) and asked.memory is None
    asked = read(["submit", "--setattr=cwd=/w", '--job-name="fxo:m0 nf-A"', "/bin/bash", ".command.run"])
    assert isinstance(asked, Submit) and asked.memory is None


@pytest.mark.parametrize(
    ("text", "count"), [("2", 2), ("a100:2", 2), ("a100", 1), ("2080ti:1", 1), ("3090:2", 2), ("1g.5gb:3", 3)]
)
def test_gpus_of_slurm(text: str, count: int) -> None:
    assert values.gpus(text) == count


@pytest.mark.parametrize("text", [" ", "a100:x y", ":", "a:b:c"])
def test_what_is_no_number_of_gpus(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        values.gpus(text)


def test_a_dead_session_has_an_ignored_task_fail_and_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nextflow never ends where an ignored task could not be submitted."""
    session, other, work = tmp_path / "session", tmp_path / "other", tmp_path / "work"
    for one in (session, other, work):
        one.mkdir()
        (one / "lock").touch()
    monkeypatch.chdir(work)
    line = ["submit", f"--setattr=cwd={work}", '--job-name="fxo:t5:i nf-A"', "/bin/bash", ".command.run"]
    code, said = burial.answer(str(session), line)
    assert (code, (work / ".exitcode").read_text()) == (0, str(ending.NEVER_STARTED)) and said.startswith("f")
    line[2] = '--job-name="fxo:t5 nf-A"'
    code, said = burial.answer(str(other), line)
    assert code == 1 and "nothing can be submitted any more" in said


def test_memory_that_is_not_known_does_not_count() -> None:
    nodes = nodes_of([NodeInfo(rank, "a", cores, 0, None, up=True, drained=False) for rank, cores in ((0, 2), (1, 0))])
    assert cores_for(1, 0, 2**50, nodes) == 1


# -- environments


def test_nextflow_finds_our_command_first_and_its_tasks_do_not() -> None:
    environ = {"PATH": "/a:/b", "FLUX_URI": "x", "NXF_OPTS": "y", "HOME": "/h"}
    inside = environment.for_nextflow(environ, "/s")
    assert inside["PATH"] == "/s/bin:/a:/b" and inside["NXF_EXECUTOR"] == "flux" and inside["HOME"] == "/h"
    assert environment.for_session(inside)["PATH"] == "/a:/b"
    assert environment.for_nextflow(inside, "/t")["PATH"] == "/t/bin:/a:/b"
    assert inside["NXF_EXECUTOR_QUEUESIZE"] == "1000"
    assert inside["NXF_EXECUTOR_POLLINTERVAL"] == "1 sec"
    said = {"NXF_EXECUTOR_QUEUESIZE": "5", "NXF_EXECUTOR_POLLINTERVAL": ""}
    outside = environment.for_nextflow(said, "/t")
    assert outside["NXF_EXECUTOR_QUEUESIZE"] == "5" and outside["NXF_EXECUTOR_POLLINTERVAL"] == "1 sec"
    assert set(outside) == set(environment.CHANGED)
    assert environment.for_tasks(environ, "run", remote=False) == {
        "FLUX_URI": None,
        "NXF_OPTS": None,
        environment.TASK: "run",
    }


def test_tasks_in_pods_have_what_is_allowed_only() -> None:
    environ = {"HOME": "/h", "NXF_DEBUG": "1", "NXF_TASK_X": "2", "TOKEN": "t"}
    assert environment.for_tasks(environ, "run", remote=True) == {
        "NXF_DEBUG": "1",
        "NXF_TASK_X": "2",
        environment.TASK: "run",
    }


# -- Nextflow's command line


def test_our_configuration_comes_before_the_users() -> None:
    argv = ["nextflow", "-c", "mine", "run", "x"]
    assert settings.with_config(argv, "ours") == ["nextflow", "-c", "ours", "-c", "mine", "run", "x"]
    assert settings.with_config(["nextflow", "-C", "only", "run"], "ours") == ["nextflow", "-C", "only", "run"]


@pytest.mark.parametrize(
    ("argv", "environ", "work"),
    [
        (["nextflow", "run", "x", "-w", "/w"], None, "/w"),
        (["nextflow", "run", "x", "-work-dir", "w"], "/e", "w"),
        (["nextflow", "run", "x"], "/e", "/e"),
        (["nextflow", "run", "x"], None, None),
        (["nextflow", "run", "x", "-w"], None, None),
    ],
)
def test_the_work_directory_of_a_command_line(argv: list[str], environ: str | None, work: str | None) -> None:
    assert settings.work_directory(argv, environ) == work


# -- files


@given(directories=st.lists(st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name), max_size=5))
def test_the_table_gives_what_was_put_into_it(
    directories: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = str(tmp_path_factory.mktemp("table") / "table")
    table = records.Table(path)
    for number, directory in enumerate(directories):
        table.add(f"f{number}", directory)
    for number in range(0, len(directories), 2):
        table.ended(f"f{number}")
    table.close()
    expected = {f"f{number}": (directory, number % 2 == 0) for number, directory in enumerate(directories)}
    assert records.read_table(path) == expected


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b"+f1 /a\n+f2 /b")
    assert records.read_table(str(tmp_path / "table")) == {"f1": (b"/a", False)}


def test_results_and_sentences_are_whole_lines(tmp_path: Path) -> None:
    work = os.fsencode(tmp_path)
    assert records.read_result(work) is None
    (tmp_path / ".command.log").write_text("no line feed")
    records.add_to_log(work, "said")
    records.write_result(work, 143)
    assert records.read_result(work, refresh=True) == b"143"
    assert (tmp_path / ".command.log").read_text() == "no line feed\nflux: said\n"
    assert (tmp_path / ".command.begin").exists()
    assert records.read_result(os.fsencode(tmp_path / "gone"), refresh=True) is None


# -- how tasks are taken in


def config_with(broker_config: str, provisioner: str = "direct") -> RunConfig:
    flux = {"brokerConfig": broker_config} if broker_config else {}
    document = {
        "apiVersion": "flux-operator-executors/v1", "kind": "FluxRun", "run": {"provisioner": provisioner},
        "minicluster": {"size": 1, "flux": flux, "containers": [{"image": "image"}]},
    }  # fmt: skip
    return load_config(document, environ={})


@pytest.mark.parametrize("given", ["", '[resource]\nexclude = "0"', "[[queues]]\na = 1\n"])
def test_a_minicluster_of_ours_takes_each_task_in_at_once(given: str) -> None:
    made = ingest.one_by_one(config_with(given)).minicluster
    assert made is not None
    read = tomllib.loads(made.flux.broker_config)
    assert read.pop("ingest") == {"batch-count": 1} and read == tomllib.loads(given)


@pytest.mark.parametrize(
    ("given", "provisioner"), [("[ingest]\nbatch-count = 5", "direct"), ("not TOML", "direct"), ("", "operator")]
)
def test_what_the_user_or_another_operator_configures_is_left_alone(given: str, provisioner: str) -> None:
    config = config_with(given, provisioner)
    assert ingest.one_by_one(config) is config


def test_ids_of_pilots_are_ids_of_flux_by_their_form() -> None:
    ids = [task_id(f"p{epoch}.{count}") for epoch in (1, 2) for count in (1, 2, 100_000)]
    assert len({*ids, task_id("effff-1")}) == 7
    assert all(task_id(one) == one for one in ids)
