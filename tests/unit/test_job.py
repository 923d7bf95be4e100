"""A request and its jobspec."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors import JobRequest, RequestError
from executors.agent.embedded.plan import read_jobspec
from executors.job import Defaults, Environments, Submission, prepare_submission

BASE = {"PATH": "/bin", "TOKEN": "inherited"}


def item(request: JobRequest, defaults: Defaults | None = None) -> Submission:
    return prepare_submission(request, defaults or Defaults(), Environments(BASE), "/work")


def system(request: JobRequest, defaults: Defaults | None = None) -> dict[str, Any]:
    found: dict[str, Any] = item(request, defaults).jobspec["attributes"]["system"]
    return found


def test_the_smallest_request_has_the_smallest_jobspec() -> None:
    assert item(JobRequest(argv=["true"])).jobspec == {
        "version": 1,
        "resources": [{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}],
        "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 0.0, "cwd": "/work", "environment": BASE}},
    }


def test_what_a_request_does_not_say_comes_from_the_defaults() -> None:
    defaults = Defaults(queue="q", bank="b", cores_per_task=3, duration=60.0, urgency=20, env={"X": "1"})
    made = item(JobRequest(argv=["true"]), defaults)
    assert made.urgency == 20
    attributes = made.jobspec["attributes"]["system"]
    assert (attributes["queue"], attributes["bank"], attributes["duration"]) == ("q", "b", 60.0)
    assert attributes["environment"]["X"] == "1"
    assert made.jobspec["resources"][0]["with"][0]["count"] == 3
    assert system(JobRequest(argv=["true"], queue="other"), defaults)["queue"] == "other"


def test_the_environment_is_a_delta() -> None:
    request = JobRequest(argv=["true"], env={"NEW": "n", "PATH": None})
    assert system(request)["environment"] == {"NEW": "n", "TOKEN": "inherited"}


def test_a_secret_is_in_no_part_of_the_jobspec_nor_inherited() -> None:
    made = item(JobRequest(argv=["true"], secret_env={"TOKEN": "sesame"}))
    assert "sesame" not in json.dumps(made.jobspec) and "inherited" not in json.dumps(made.jobspec)
    assert "sesame" not in repr(made)
    assert made.to_wire()["secret_env"] == {"TOKEN": "sesame"}


def test_output_files_and_other_attributes_find_their_places() -> None:
    request = JobRequest(
        argv=["true"], stdout="/a", stderr="/b", attributes={"system.shell.options.mpi": "none", "user.tag": 1},
        constraint={"properties": ["x"]}, name="n",
    )  # fmt: skip
    made = item(request).jobspec["attributes"]
    assert made["system"]["shell"]["options"] == {
        "output": {"stdout": {"type": "file", "path": "/a"}, "stderr": {"type": "file", "path": "/b"}},
        "mpi": "none",
    }
    assert made["user"] == {"tag": 1}
    assert made["system"]["constraints"] == {"properties": ["x"]} and made["system"]["job"] == {"name": "n"}


@given(
    nodes=st.none() | st.integers(1, 6),
    tasks=st.integers(1, 24),
    cores=st.integers(1, 8),
    gpus=st.integers(0, 3),
)
def test_what_is_asked_for_is_what_the_jobspec_holds(nodes: int | None, tasks: int, cores: int, gpus: int) -> None:
    request = JobRequest(argv=["x"], nodes=nodes, tasks=tasks, cores_per_task=cores, gpus_per_task=gpus)
    if nodes is not None and tasks < nodes:
        with pytest.raises(RequestError, match="at least one task per node"):
            item(request)
        return
    plan = read_jobspec(item(request).jobspec, "/")
    slots = tasks if nodes is None else nodes * math.ceil(tasks / nodes)
    assert (plan.tasks, plan.nodes) == (tasks, nodes or 1)
    assert (plan.cores, plan.gpus) == (slots * cores, slots * gpus)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"argv": []}, "argv: is empty"),
        ({"argv": "echo hi"}, "argv: 'echo hi' is one string"),
        ({"argv": ["x", 3]}, "argv[1]: 3 is a int"),
        ({"argv": ["x\0"]}, "null byte"),
        ({"argv": ["x" * 131072]}, "put it into a file"),
        ({"argv": ["\udcff"]}, "argv[0]: is not valid text"),
        ({"tasks": 0}, "tasks: 0"),
        ({"tasks": True}, "tasks: True"),
        ({"cores_per_task": -1}, "cores_per_task: -1"),
        ({"duration": math.nan}, "duration: nan"),
        ({"duration": "60"}, "duration: '60'"),
        ({"urgency": 32}, "urgency: 32"),
        ({"exclusive": True}, "set nodes"),
        ({"key": ""}, "key: '' is not a string of 1 to 256 characters"),
        ({"cwd": "relative"}, "cwd: 'relative' is not an absolute path"),
        ({"stdout": ""}, "stdout: ''"),
        ({"env": {"A=B": "x"}}, "env: 'A=B'"),
        ({"env": {"A": 1}}, "env.A: must be a string"),
        ({"env": {"A": "\udcff"}}, "env.A: is not valid text"),
        ({"secret_env": {"a-b": "x"}}, "secret_env: 'a-b'"),
        ({"secret_env": {"A": "x"}, "env": {"A": "y"}}, "secret_env.A: is given in env too"),
        ({"attributes": {"other.x": 1}}, "attributes: 'other.x'"),
        ({"constraint": {"x": object()}}, "not JSON"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        item(JobRequest(**{"argv": ["x"], **fields}))
    assert words in str(caught.value)


#: Of each kind of value some that people give by mistake.
_ODD: list[Any] = [5, 1.5, True, "hidden", b"hidden", Path("/tmp"), [1], ["a"], [("A", "b")], {"a": 1}, {1: 2}, {"A"},
                   object(), "a\0b", "\udc80", float("nan"), -1, [], {}, None]  # fmt: skip


def problems_of(request: JobRequest) -> list[str]:
    """[] where it can be sent."""
    try:
        prepared = prepare_submission(request, Defaults(), Environments({}), "/")
    except RequestError as err:
        return list(err.problems)
    json.dumps(prepared.to_wire()).encode("ascii")
    return []


@pytest.mark.parametrize("field", [one.name for one in dataclasses.fields(JobRequest)])
def test_whatever_a_field_holds_it_is_a_job_or_an_error_that_names_the_field(field: str) -> None:
    for value in _ODD:
        given: dict[str, Any] = {"argv": ["true"], field: value}
        found = problems_of(JobRequest(**given))
        assert all(one.startswith((field, "constraint or attributes", "exclusive", "nodes")) for one in found), value
        assert not field.endswith("env") or "hidden" not in "".join(found)


def test_a_path_is_told_how_to_be_a_string() -> None:
    with pytest.raises(
        RequestError, match=r"cwd: '/tmp' is of the type PosixPath; it must be a string; give str\(cwd\)"
    ):
        prepare_submission(JobRequest(argv=["true"], cwd=Path("/tmp")), Defaults(), Environments({}), "/")  # type: ignore[arg-type]


def test_everything_wrong_is_said_in_one_error_without_secrets() -> None:
    request = JobRequest(argv=[], duration=-1, urgency=-1, secret_env={"a-b": "sesame"}, name="broken")
    with pytest.raises(RequestError) as caught:
        item(request)
    assert len(caught.value.problems) == 4
    assert "broken" in str(caught.value) and "sesame" not in str(caught.value)


def test_the_digest_tells_work_apart_but_not_environments() -> None:
    digest = item(JobRequest(argv=["a"])).digest
    assert (
        digest == prepare_submission(JobRequest(argv=["a"]), Defaults(), Environments({"OTHER": "1"}), "/work").digest
    )
    assert digest != item(JobRequest(argv=["b"])).digest
    assert digest != item(JobRequest(argv=["a"], tasks=2)).digest
    assert item(JobRequest(argv=["a"], identity="i")).digest == item(JobRequest(argv=["b"], identity="i")).digest
