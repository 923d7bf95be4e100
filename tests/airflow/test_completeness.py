"""Output whole or an error: a task never gives what is only the beginning of its job's output."""

from __future__ import annotations

import json

from tests.airflow.conftest import Python

HEAD = """
from dataclasses import asdict
from executors import JobRequest, JobResult, Outcome, RunId, load_config, open_session
from airflow_provider_flux.output import OutputLog

def told(action):
    try:
        return ["gave", action()]
    except Exception as err:
        return [type(err).__name__, str(err)]
"""


def test_a_task_whose_instance_is_gone_with_the_rest_of_the_output_is_lost(python: Python) -> None:
    found = python(
        HEAD
        + """
config = load_config(options={"run.provisioner": "local", "run.engine": "embedded"})
with open_session(RunId("airflow", "completeness"), config, auto_acknowledge=False) as session:
    [handle] = session.submit([JobRequest(argv=["sh", "-c", "echo beginning; echo the end"])])
    result, name, job = handle.result(60), session.run_name, handle.id
event = {"job_id": job, "run_name": name, "options": {"run.provisioner": "local"}, "flux_conn_id": "flux_default",
         "links": {}, "result": {**asdict(result), "outcome": str(result.outcome)}, "timed_out": False, "read": False,
         "place": "10,0,0", "result_line": ["beginning", 9, False], "tail": [], "sealed": ""}
answers = []
for kind in ("last_line", "json", "none"):
    task = FluxOperator(task_id="a", command="true", deferrable=True, result=kind)
    answers.append(told(lambda: task.execute_complete({}, dict(event))))
print(json.dumps(answers))
"""
    )
    for name, text in found[:2]:
        assert name == "FluxJobLost" and "its output could not be read whole" in text
    assert found[2] == ["gave", None]  # nothing that was asked for is missing


def test_a_worker_that_reads_only_a_part_loses_the_task_and_makes_its_key_free(python: Python) -> None:
    found = python(
        HEAD
        + """
from executors.client import OutputSubscription
class Handle:
    id = "f1"
    def result(self): return JobResult(Outcome.COMPLETED, 0)
class Session:
    def follow(self, job, stream, offset, sink):
        if stream == "stdout":
            sink(b"beginning\\nhalf of")
            sink(ConnectionError("the node is gone"))
        else:
            sink(None)
        return OutputSubscription(lambda: None, lambda size: None)
asked = []
task = FluxOperator(task_id="a", command="true")
output = OutputLog(1000)
cut = task._follow(Session(), Handle(), output)
end = [Handle().result(), output.result, [], cut, lambda: asked.append(1)]
print(json.dumps([*told(lambda: task._finish({}, "f1", *end)), asked]))
"""
    )
    assert found[0] == "FluxJobLost"
    assert "stdout: the node is gone" in found[1]
    assert found[2] == [1]


def test_what_airflow_would_refuse_after_the_end_is_told_by_the_task(python: Python) -> None:
    """Or the next try would take over the same job, with the same value."""
    found = python(
        HEAD
        + """
from airflow_provider_flux.output import Result
with DAG("d", schedule=None):
    lister = FluxOperator(task_id="lister", command="true", result="json")
    FluxOperator.partial(task_id="each").expand(command=lister.output)
    parts = FluxOperator(task_id="parts", command="true", result="json", multiple_outputs=True)
    silent = FluxOperator(task_id="silent", command="true", result="json", do_xcom_push=False)
answers = []
for task, text in ((lister, "3"), (lister, "[3]"), (lister, str([1] * 2000)), (parts, "[3]"), (parts, '{"a": 1}'),
                   (silent, "3")):
    line = Result(text, len(text))
    answers.append(told(lambda: task._finish({}, "f1", JobResult(Outcome.COMPLETED, 0), line, [], None, lambda: None)))
print(json.dumps(answers))
"""
    )
    assert found[1] == ["gave", [3]] and found[4] == ["gave", {"a": 1}] and found[5] == ["gave", 3]
    refused = [text for name, text in (found[0], found[2], found[3]) if name == "AirflowException"]
    for words, text in zip(
        ("the task each is mapped over it, and 3 is not a list", "more than the 1024 of", "needs a JSON mapping: [3]"),
        refused,
        strict=True,
    ):
        assert words in text


def test_a_trigger_without_the_key_leaves_the_whole_output_to_the_worker_who_masks_it(python: Python) -> None:
    """The instance's agent keeps the key in memory: it may have been started again."""
    found = python(
        HEAD
        + """
import asyncio
from types import SimpleNamespace
from airflow_provider_flux.sealing import Kept, seal
from airflow_provider_flux.triggers.job import FluxJobTrigger
SECRET = "hunter2-and-more"
context = {"ti": SimpleNamespace(map_index=-1)}
config = load_config(options={"run.provisioner": "local", "run.engine": "embedded"})
async def event_of(trigger):
    async for event in trigger.run():
        return event.payload
found = []
with open_session(RunId("airflow", "keyless"), config, auto_acknowledge=False) as session:
    argv = ["sh", "-c", 'echo "it was $T"; echo the end']
    [handle] = session.submit([JobRequest(argv=argv, secret_env={"T": SECRET})])
    handle.result(60)
    sealed, key = seal([SECRET])
    for kept in (None, Kept(1, key=key)):
        if kept is not None:
            session.save_bookmark(handle.id, str(kept))
        where = {"run_name": session.run_name, "options": {"run.provisioner": "local"}}
        trigger = FluxJobTrigger(**where, job_id=handle.id, sealed=sealed)
        event = asyncio.run(event_of(trigger))
        # Other templates by now: the value that the job was given is known by the key only.
        given = SECRET if kept is None else "another one"
        task = FluxOperator(task_id="a", command="true", deferrable=True, secret_env={"T": given})
        lines = []
        task._log_lines = lines.extend
        if kept is not None:
            event |= {"read": False, "place": "0,0,0"}
        found.append([event["read"], event["tail"], event["result_line"], task.execute_complete(context, event), lines])
        assert SECRET not in str([trigger.serialize(), event])
print(json.dumps(found))
"""
    )
    keyless, keyed = found
    assert keyless == [False, [], None, "the end", ["it was ***", "the end"]]
    assert keyed == [False, ["it was ***", "the end"], ["the end", 7, False], "the end", ["it was ***", "the end"]]


def test_a_task_stays_deferred_until_the_scheduler_knows_that_its_worker_has_ended(python: Python) -> None:
    """Otherwise Airflow 3.3 takes the worker's end for the end of the task that goes on, and fails it."""
    pauses, earliest = python(
        HEAD
        + """
import asyncio
from airflow_provider_flux.triggers import job as module
pauses = []
pause = asyncio.sleep
async def sleep(seconds):
    pauses.append(seconds)
    await pause(0)
asyncio.sleep = sleep
async def event_of(trigger):
    async for event in trigger.run():
        return event.payload
config = load_config(options={"run.provisioner": "local", "run.engine": "embedded"})
with open_session(RunId("airflow", "short"), config, auto_acknowledge=False) as session:
    [handle] = session.submit([JobRequest(argv=["true"])])
    handle.result(60)
    earliest = module.shortest_deferral()
    module.shortest_deferral = lambda: 1000.0
    trigger = module.FluxJobTrigger(run_name=session.run_name, options={"run.provisioner": "local"}, job_id=handle.id)
    assert asyncio.run(event_of(trigger))["result"]["outcome"] == "COMPLETED"
print(json.dumps([pauses, earliest]))
"""
    )
    # What it has waited for anyway counts.
    assert 800 < max(pauses) < 1000
    # The tests' heartbeat is a second; Airflow's own is five.
    assert earliest == 3


def test_only_a_job_that_takes_its_time_is_deferred(python: Python) -> None:
    found = python(
        HEAD
        + """
from types import SimpleNamespace
from airflow.sdk.exceptions import TaskDeferred
from airflow_provider_flux.hooks.flux import FluxHook
def outcome(command, number):
    task = FluxOperator(task_id=f"a{number}", command=command, deferrable=True)
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id=task.task_id, map_index=-1, try_number=1, max_tries=0)
    try:
        return task.execute({"ti": ti})
    except TaskDeferred as err:
        return ["deferred", err.method_name]
with FluxHook().open_session(FluxOperator(task_id="a", command="true")._minicluster(), "d", "r", ".", print) as session:
    found = [outcome("sleep 0.3; echo short", 1), outcome("sleep 600", 2)]
    session.release()
print(json.dumps(found))
""",
        AIRFLOW__FLUX__DEFER_AFTER="5",
        AIRFLOW_CONN_FLUX_DEFAULT=json.dumps({"conn_type": "flux", "extra": {"provisioner": "local"}}),
        FLUX_OPERATOR_ENGINE="embedded",
    )
    assert found == ["short", ["deferred", "execute_complete"]]


def test_what_an_earlier_trys_trigger_saw_is_not_taken_for_this_trys(python: Python) -> None:
    """Airflow gives numbers of triggers again in SQLite: a task that was cleared as it deferred was told that."""
    found = python(
        HEAD
        + """
from types import SimpleNamespace
from airflow.sdk.exceptions import TaskDeferred
job = {"run_name": "r", "options": {}, "flux_conn_id": "flux_default", "job_id": "fNEW", "sealed": "", "deadline": 4e9}
task = FluxOperator(task_id="a", command="true", deferrable=True)
try:
    task.execute_complete({"ti": SimpleNamespace(try_number=2)}, {"job_id": "fOLD"}, job=job)
except TaskDeferred as err:
    print(json.dumps([err.method_name, err.kwargs, err.trigger.job_id, err.trigger.attempt, err.trigger.deadline]))
"""
    )
    job = {"run_name": "r", "options": {}, "flux_conn_id": "flux_default", "job_id": "fNEW", "sealed": ""}
    assert found == ["execute_complete", {"job": {**job, "deadline": 4e9}}, "fNEW", 2, 4e9]
