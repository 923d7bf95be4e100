"""What a DAG file says, before anything runs: in a process of its own, as Airflow is never imported in pytest's."""

from __future__ import annotations

import ast
from pathlib import Path

from airflow_provider_flux.fields import FIELDS
from tests.airflow.conftest import Python
from tests.airflow.environment import ROOT


def test_all_kinds_of_tasks_are_inside_a_minicluster(python: Python) -> None:
    edges = python("""
with DAG("d", schedule=None) as dag:
    outside = FluxOperator(task_id="outside", command="true")
    with FluxMiniCluster(name="one"):
        plain = FluxOperator(task_id="plain", command="true")
        mapped = FluxOperator.partial(task_id="mapped").expand(command=["true"])
        @task.flux_python
        def function(number): return number
        last = function.expand(number=[1, 2])
        plain >> last
    with FluxMiniCluster("second", name="two"):
        other = FluxOperator(task_id="other", command="true")
print(json.dumps({name: sorted(task.upstream_task_ids) for name, task in dag.task_dict.items()}))
""")
    assert edges == {
        "outside": [],
        "minicluster.create": [],
        "minicluster.delete": ["function", "mapped", "minicluster.create"],
        "plain": ["minicluster.create"],
        "mapped": ["minicluster.create"],
        "function": ["plain"],
        "second.create": [],
        "second.delete": ["other", "second.create"],
        "other": ["second.create"],
    }


def test_a_config_may_be_a_mapping(python: Python) -> None:
    found = python("""
with DAG("d", schedule=None), FluxMiniCluster(config={"kind": "FluxRun"}):
    task = FluxOperator(task_id="a", command="true")
print(json.dumps(task._minicluster().config))
""")
    assert found == {"kind": "FluxRun"}


def test_wrong_arguments_are_told_all_at_once_with_field_and_value(python: Python) -> None:
    text = python("""
from executors import RequestError
task = FluxOperator(
    task_id="a", command=["true", None], nodes=1.5, ntasks=True, time_limit="soon", env="A=1", cwd=3, urgency="high"
)
try:
    task.job_request(None)
except RequestError as err:
    print(json.dumps(str(err)))
""")
    for words in (
        "command: None is not a word",
        "nodes: 1.5 is not a whole number",
        "ntasks: True is not a whole number",
        "time_limit: 'soon' is neither",
        "env: str is not a mapping",
        "cwd: 3 is not a string",
        "urgency: 'high' is not a whole number",
    ):
        assert words in text


def test_what_a_template_has_not_found_is_no_value(python: Python) -> None:
    found = python("""
task = FluxOperator(
    task_id="a", command="x.sh", nodes="None", cores_per_task="2", time_limit="", cwd="None", flux_queue=""
)
request = task.job_request(None)
print(json.dumps([request.argv, request.nodes, request.cores_per_task, request.duration, request.cwd, request.queue]))
""")
    assert found == [["/bin/sh", "-c", "x.sh"], None, 2, None, None, None]


def test_the_source_of_a_function_travels_alone(python: Python, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text('''
from airflow_provider_flux.decorators import flux_python_task
def around():
    @flux_python_task
    def json(x: "Any", *, y: Missing = 2) -> Missing:
        """
less indented
        """
        return x
    return json
def closed():
    hidden = 1
    @flux_python_task
    def inner(): return hidden
    return inner
''')
    found = python(f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from airflow_provider_flux.decorators.flux_python import _source
from airflow_provider_flux.exceptions import FluxRequestError
import builtins; builtins.Missing = 1
import module
source = _source(module.around().function)
try:
    _source(module.closed().function)
except FluxRequestError as err:
    print(json.dumps([source, str(err)]))
""")
    source, error = found
    assert source.splitlines()[0] == "def json(x, *, y=2):"
    assert "\nless indented\n" in source
    assert "inner uses hidden of the function around it" in error


def test_the_type_stubs_know_all_parameters(python: Python) -> None:
    parameters = python("""
import inspect
print(json.dumps(sorted(inspect.signature(FluxOperator.__init__.__wrapped__).parameters)))
""")
    stub = ast.parse((ROOT / "airflow_provider_flux" / "decorators" / "__init__.pyi").read_text())
    for name, own in (("flux_task", set()), ("flux_python_task", {"python"})):
        declared = [one for one in stub.body if isinstance(one, ast.FunctionDef) and one.name == name]
        found = {argument.arg for argument in declared[1].args.kwonlyargs}
        assert found == set(parameters) - {"self", "command", "kwargs"} | {"multiple_outputs"} | own


def test_the_provider_info_is_what_airflow_takes(python: Python) -> None:
    info = python("""
import airflow, os, jsonschema
from airflow_provider_flux.provider_info import get_provider_info
from airflow.providers_manager import ProvidersManager
from airflow._shared.module_loading import import_string
schema = json.load(open(os.path.join(os.path.dirname(airflow.__file__), "provider_info.schema.json")))
info = get_provider_info()
jsonschema.validate(info, schema)
for name in [*info["extra-links"], *info["cli"], *(one["class-name"] for one in info["task-decorators"])]:
    import_string(name)
manager = ProvidersManager()
print(json.dumps([manager.hooks["flux"].hook_name, sorted(manager.connection_form_widgets)]))
""")
    name, widgets = info
    assert name == "Flux"
    assert {one for one in widgets if "flux" in one} >= {f"extra__flux__{field}" for field in FIELDS}
