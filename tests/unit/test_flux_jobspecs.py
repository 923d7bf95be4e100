"""The text that Flux is given of a job, without Flux."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from executors.agent.engine import SharedEnvironment, Submission
from executors.agent.flux.jobspecs import JobspecWriter, NodeFiles, sentinel, tag_of, task_count


def jobspec(command: list[str] | None = None, **count: int) -> dict[str, Any]:
    return {
        "version": 1,
        "resources": [{"type": "slot", "count": 2, "label": "task", "with": [{"type": "core", "count": 1}]}],
        "tasks": [{"command": command or ["true"], "slot": "task", "count": count or {"per_slot": 1}}],
        "attributes": {"system": {"cwd": "/", "environment": {"A": "1"}}},
    }


def writer(directory: Path, epoch: str = "", usage_path: str = "", **files: Any) -> JobspecWriter:
    made = JobspecWriter("run", str(directory), epoch, usage_path)
    made.node_files = NodeFiles(**files)
    return made


def test_a_jobs_tag_is_found_again_by_its_run_only(tmp_path: Path) -> None:
    text = writer(tmp_path).write(Submission(jobspec(), key="k", digest="d", name="n"), [])
    tag = tag_of(json.loads(text), "run")
    assert tag is not None and (tag["key"], tag["digest"], tag["name"], tag["tasks"]) == ("k", "d", "n", 2)
    assert tag_of(json.loads(text), "another") is None


@pytest.mark.parametrize("spec", [None, {}, {"attributes": None}, {"attributes": {"user": {"fxo": 3}}}, []])
def test_what_has_no_tag_is_somebody_elses(spec: Any) -> None:
    assert tag_of(spec, "run") is None


def test_a_sentinel_has_no_tag_and_belongs_to_no_run() -> None:
    spec = json.loads(sentinel())
    assert spec["version"] == 1 and tag_of(spec, "run") is None


def test_tasks_are_counted_as_the_jobspec_says() -> None:
    assert task_count(jobspec(per_slot=3)) == 6 and task_count(jobspec(total=5)) == 5
    node = {"type": "node", "count": 4, "with": jobspec()["resources"]}
    assert task_count({**jobspec(), "resources": [node]}) == 8


def test_the_environment_of_a_request_is_put_where_the_jobs_own_was(tmp_path: Path) -> None:
    shared = SharedEnvironment({"B": "2", "NOT_TEXT": "\udcff"})
    files: list[str] = []
    text = writer(tmp_path, epoch="outer:inner").write(Submission(jobspec(), environment=shared), files)
    spec = json.loads(text)
    assert spec["attributes"]["system"]["environment"] == {"B": "2", "FXO_EPOCH": "outer:inner"}
    assert len(files) == 2  # what JSON cannot hold goes by a file to each task
    assert all(os.stat(path).st_mode & 0o777 == 0o600 and b"NOT_TEXT" in Path(path).read_bytes() for path in files)


def test_a_secret_is_in_files_only_whose_base_the_tag_names(tmp_path: Path) -> None:
    files: list[str] = []
    text = writer(tmp_path).write(Submission(jobspec(), secret_env={"TOKEN": "swordfish"}), files)
    tag = tag_of(json.loads(text), "run")
    assert tag is not None and files == [f"{tmp_path}/{tag['secret']}.{rank}" for rank in (0, 1)]
    assert "swordfish" not in text and "swordfish" in Path(files[0]).read_text()
    assert json.loads(text)["tasks"][0]["command"] != ["true"]  # something reads it before


def test_output_is_spooled_where_all_nodes_share_the_directory(tmp_path: Path) -> None:
    one = writer(tmp_path, spool=str(tmp_path / "spool"), shell_text=str(tmp_path / "shell.lua"))
    tag = tag_of(json.loads(one.write(Submission(jobspec()), [])), "run")
    assert tag is not None and tag["spooled"]
    other = writer(tmp_path, shell_text="/files/shell.lua", are_local_to_lead=True)
    tag = tag_of(json.loads(other.write(Submission(jobspec()), [])), "run")
    assert tag is not None and "spooled" not in tag


def test_only_a_job_that_is_measured_has_a_meter(tmp_path: Path) -> None:
    measuring = writer(tmp_path, usage_path=str(tmp_path / "usage"))
    measured = json.loads(measuring.write(Submission(jobspec(), measure=True), []))["tasks"][0]["command"]
    assert measured[-1] == "true" and str(tmp_path / "usage") in measured
    assert json.loads(measuring.write(Submission(jobspec()), []))["tasks"][0]["command"] == ["true"]
    without = writer(tmp_path)
    assert json.loads(without.write(Submission(jobspec(), measure=True), []))["tasks"][0]["command"] == ["true"]
