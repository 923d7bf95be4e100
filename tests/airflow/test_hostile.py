"""What a hostile reader of the provider found: connections, kills, clears, mapped groups, signals, late triggerers."""

from __future__ import annotations

from tests.airflow.conftest import Python

HEAD = """
import datetime, logging, threading
from types import SimpleNamespace
import airflow_provider_flux.operators.flux as module
from executors import JobResult, Outcome

TI = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1, max_tries=0)

def dag(name):
    return DAG(name, start_date=datetime.datetime(2026, 1, 1), schedule=None)

def told(action):
    try:
        return ["gave", action()]
    except BaseException as err:
        return [type(err).__name__, str(err)]
"""


def test_a_task_in_a_minicluster_uses_the_miniclusters_connection(python: Python) -> None:
    found = python(
        HEAD
        + """
seen = []

class Hook:
    def __init__(self, conn_id):
        self.conn_id = conn_id
    def open_session(self, *given):
        seen.append(self.conn_id)
        raise KeyboardInterrupt
    def run_config(self, *given):
        seen.append(self.conn_id)
        raise KeyboardInterrupt

module.FluxHook = Hook
with dag("d"), FluxMiniCluster(flux_conn_id="k8s"):
    task = FluxOperator(task_id="t", command="true")
    again = FluxOperator(task_id="again", command="true")
told(lambda: task.execute({"ti": TI}))
told(lambda: again._cancel_by_key({"ti": TI}))
print(json.dumps(seen))
"""
    )
    assert found == ["k8s", "k8s"]


def test_a_kill_cancels_the_job_whatever_the_log_is_about(python: Python) -> None:
    """The signal comes as the task's own thread writes the log, whose lock it holds then."""
    found = python(
        HEAD
        + """
lock = threading.Lock()
cancelled = threading.Event()

class Log:
    def info(self, *words):
        with lock:
            pass

class Handle:
    id = "f1"
    def cancel(self, why):
        cancelled.set()

class Task(FluxOperator):
    log = Log()

task = Task(task_id="t", command="true")
task._handle = Handle()
lock.acquire()
killing = threading.Thread(target=task.on_kill, daemon=True)
killing.start()
killing.join(30)
print(json.dumps([cancelled.is_set(), killing.is_alive()]))
"""
    )
    assert found == [True, False]


def test_a_mapped_task_group_has_no_minicluster_of_its_own(python: Python) -> None:
    found = python(
        HEAD
        + """
from airflow.sdk import task_group

def parse():
    with dag("d"):
        @task_group
        def group(seconds):
            with FluxMiniCluster():
                FluxOperator(task_id="t", command=["sleep", seconds])
        group.expand(seconds=["1", "600"])

def around():
    with dag("e"), FluxMiniCluster():
        @task_group
        def group(seconds):
            FluxOperator(task_id="t", command=["sleep", seconds])
        group.expand(seconds=["1", "600"])

print(json.dumps([told(parse), told(around)]))
"""
    )
    assert found[0][0] == "ValueError" and "put FluxMiniCluster around the group" in found[0][1]
    assert found[1] == ["gave", None]


def test_ends_are_what_they_are(python: Python) -> None:
    """An exit code of a signal's number; a job that completed before a late triggerer could end it."""
    found = python(
        HEAD
        + """
from airflow_provider_flux.exceptions import raise_for

ended = JobResult(Outcome.SIGNALED, 130, 2)
event = {"job_id": "f1", "run_name": "n", "options": {}, "flux_conn_id": "flux_default", "links": {},
         "result": {"outcome": "COMPLETED", "returncode": 0}, "timed_out": True, "read": True, "place": "0,0,0",
         "result_line": ["5", 1, False], "tail": [], "sealed": ""}
task = FluxOperator(task_id="t", command="true")
task._forget = lambda event: None
print(json.dumps([
    told(lambda: raise_for(ended, "it", skip_on=[130])),
    told(lambda: raise_for(ended, "it", skip_on=[1])),
    told(lambda: task.execute_complete({"ti": TI}, dict(event))),
    told(lambda: task.execute_complete({"ti": TI}, {**event, "result": {"outcome": "CANCELLED"}})),
]))
"""
    )
    assert [one[0] for one in found] == ["AirflowSkipException", "FluxJobFailed", "gave", "AirflowTaskTimeout"]
    assert found[2][1] == "5"


def test_a_function_travels_without_what_airflow_has_put_around_it(python: Python) -> None:
    found = python(
        HEAD
        + """
import sys, tempfile, pathlib, importlib.util
from airflow_provider_flux.decorators.flux_python import _source

text = '''
import functools
def outer(**given):
    return lambda function: function
setup = task = outer
flux_python = outer()

@outer(condition=1)
@flux_python
@functools.lru_cache
def work(number: int) -> int:
    return number

@outer()
def alias(number):
    return number
'''
path = pathlib.Path(tempfile.mkdtemp()) / "functions.py"
path.write_text(text)
spec = importlib.util.spec_from_file_location("functions", path)
functions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(functions)
print(json.dumps([_source(functions.work.__wrapped__), _source(functions.alias)]))
"""
    )
    assert found == [
        "@functools.lru_cache\ndef work(number):\n    return number",
        "def alias(number):\n    return number",
    ]


def test_a_deployment_that_finds_anothers_instances_is_refused(python: Python) -> None:
    code = HEAD + "from airflow_provider_flux.names import deployment_id\nprint(json.dumps(told(deployment_id)))\n"
    assert python(code, AIRFLOW__FLUX__DEPLOYMENT_ID="prod2") == ["gave", "prod2"]
    for wrong in ("prod-eu", "prod_eu", "Prod", "a" * 21):
        name, text = python(code, AIRFLOW__FLUX__DEPLOYMENT_ID=wrong)
        assert name == "ConfigError" and repr(wrong) in text


def test_a_triggerer_that_was_away_leaves_the_job_to_the_one_that_has_it(python: Python) -> None:
    found = python(
        HEAD
        + """
import asyncio, time
from executors import JobRequest, RunId, load_config, open_session
from airflow_provider_flux.sealing import Kept
from airflow_provider_flux.triggers.job import FluxJobTrigger

config = load_config(options={"run.provisioner": "local", "run.engine": "embedded"})
answers = []
with open_session(RunId("airflow", "triggerers"), config, auto_acknowledge=False) as session:
    [handle] = session.submit([JobRequest(argv=["sleep", "60"])])
    handle.wait_submitted()
    common = {"run_name": session.run_name, "options": {"run.provisioner": "local"}, "job_id": handle.id}
    away, here = FluxJobTrigger(**common), FluxJobTrigger(**common)

    async def waiting(trigger):
        task = asyncio.ensure_future(anext(trigger.run()))
        for _ in range(600):
            await asyncio.sleep(0.05)
            kept = Kept.parse(session.jobs(ids=[handle.id])[0].bookmark)
            if kept is not None and kept.reader == trigger._reader:
                return task
        raise TimeoutError

    async def story():
        first = await waiting(away)
        second = await waiting(here)
        await away.on_kill()
        answers.append(handle.done())
        await here.on_kill()
        answers.append(str(handle.result(30).outcome))
        for task in (first, second):
            task.cancel()

    asyncio.run(story())
print(json.dumps(answers))
"""
    )
    assert found == [False, "CANCELLED"]
