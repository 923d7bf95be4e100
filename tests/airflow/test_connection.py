"""The connection type ``flux``: what it takes, what it refuses, and its test button."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.airflow.conftest import Python
from tests.airflow.stack import AirflowStack
from tests.support.prepared import Prepared

ASK = """
from airflow_provider_flux.hooks.flux import FluxHook
from executors import ConfigError
from airflow.providers.common.compat.sdk import AirflowNotFoundException
def told(*given, **more):
    try:
        config = FluxHook(*given[:1]).run_config(*given[1:], **more)
    except (ConfigError, AirflowNotFoundException) as err:
        return str(err)
    return [config.run.provisioner, config.run.namespace, config.run.kubeconfig, config.run.idle_timeout]
"""


def connection(kind: str = "flux", **extra: object) -> str:
    return json.dumps({"conn_type": kind, "extra": extra})


def test_without_a_connection_instances_are_made_here(python: Python) -> None:
    assert python(ASK + "print(json.dumps(told()))")[0] == "local"


def test_fields_win_over_the_config_which_may_be_content_or_a_file(python: Python, tmp_path: Path) -> None:
    content = "apiVersion: flux-operator-executors/v1\nkind: FluxRun\nrun: {namespace: theirs, idleTimeout: 7}\n"
    (tmp_path / "run.yaml").write_text(content)
    by_content = python(
        ASK + "print(json.dumps(told()))",
        AIRFLOW_CONN_FLUX_DEFAULT=connection(provisioner="direct", namespace="ours", config=content),
    )
    assert by_content == ["direct", "ours", None, 7]
    by_file = python(
        ASK + f"print(json.dumps(told('flux_default', 'run.yaml', {str(tmp_path)!r})))",
        AIRFLOW_CONN_FLUX_DEFAULT=connection(provisioner="direct"),
    )
    assert by_file == ["direct", "theirs", None, 7]


def test_a_kubernetes_connection_can_say_where(python: Python) -> None:
    kubernetes = {"kube_config_path": "/etc/kube", "namespace": "science", "cluster_context": "c"}
    found = python(
        ASK + "print(json.dumps(told()))",
        AIRFLOW_CONN_FLUX_DEFAULT=connection(provisioner="direct", kubernetes_conn_id="kube"),
        AIRFLOW_CONN_KUBE=connection("kubernetes", **kubernetes),
    )
    assert found[:3] == ["direct", "science", "/etc/kube"]


def test_a_kubeconfig_that_a_connection_holds_is_in_no_file(
    python: Python, airflow_imported: Prepared, tmp_path: Path
) -> None:
    """Also where a credential plugin is asked, which the kubernetes package starts."""
    plugin = tmp_path / "plugin"
    plugin.write_text("""#!/bin/sh
echo '{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {"token": "of-the-plugin"}}'
""")
    plugin.chmod(0o700)
    interactive = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}
    users = {"plain": {"token": "in-clear"}, "asked": {"exec": {"command": str(plugin), **interactive}}}
    kubeconfig = {
        "current-context": "plain",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": name, "user": user} for name, user in users.items()],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": name}} for name in users],
    }
    found = python(
        ASK
        + """
from executors.kube.access import ClusterAccess, load
from airflow_provider_flux.hooks.flux import reconnect_options
config = FluxHook().run_config()
accesses = [ClusterAccess(config.run.kubeconfig, name) for name in ("plain", "asked")]
tokens = [dict(load(access).headers())["Authorization"] for access in accesses]
print(json.dumps([tokens, reconnect_options(config)]))
""",
        AIRFLOW_CONN_FLUX_DEFAULT=connection(provisioner="direct", kubernetes_conn_id="kube"),
        AIRFLOW_CONN_KUBE=connection("kubernetes", kube_config=kubeconfig),
        TMPDIR=str(tmp_path / "temporary"),
    )
    assert found[0] == ["Bearer in-clear", "Bearer of-the-plugin"]
    assert found[1] == {"run.provisioner": "direct"}
    files = [*tmp_path.rglob("*"), *Path(airflow_imported.environ["AIRFLOW_HOME"]).rglob("*")]
    assert not [path for path in files if path.is_file() and "in-clear" in path.read_text("latin-1")]


def test_what_airflow_keeps_of_a_config_to_find_an_instance_again_holds_no_mapping(python: Python) -> None:
    """Its database and XComs keep it in clear, and a patch or variables may hold secrets."""
    env = [{"name": "TOKEN", "value": "hunter2"}]
    patch = {"spec": {"containers": [{"name": "tools", "env": env}]}}
    run = {"idleTimeout": 7, "kubeconfig": "/etc/kube", "podPatch": patch}
    config: dict[str, object] = {"apiVersion": "flux-operator-executors/v1", "kind": "FluxRun", "run": run}
    config["jobDefaults"] = {"env": {"A": "b"}}
    found = python(
        "from airflow_provider_flux.hooks.flux import FluxHook, reconnect_options\n"
        f"print(json.dumps(reconnect_options(FluxHook().run_config({config!r}))))",
        AIRFLOW_CONN_FLUX_DEFAULT=connection(provisioner="direct", namespace="ours"),
    )
    assert found == {
        "run.provisioner": "direct",
        "run.namespace": "ours",
        "run.kubeconfig": "/etc/kube",
        "run.idleTimeout": 7,
    }


def test_a_config_as_text_is_read_as_a_file_is(python: Python, tmp_path: Path) -> None:
    texts = {
        "merge": "apiVersion: flux-operator-executors/v1\nkind: FluxRun\nrun: {<<: {idleTimeout: 7}, ttl: 1}\n",
        "twice": "kind: FluxRun\nrun: {ttl: 1, ttl: 2}\n",
    }
    asked = [told_of for name, text in texts.items() for told_of in (repr(text), repr(str(tmp_path / name)))]
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    found = python(ASK + f"print(json.dumps([told('flux_default', one) for one in [{', '.join(asked)}]]))")
    assert [one[3] for one in found[:2]] == [7, 7]
    assert all("in line 2: 'ttl' is given twice" in one for one in found[2:])


@pytest.mark.parametrize(
    ("given", "environ", "words"),
    [
        ("'other'", {}, "flux_conn_id: 'other' is not a connection"),
        ("", {"AIRFLOW_CONN_FLUX_DEFAULT": connection("http")}, "has the type 'http'; it must be flux"),
        (
            "",
            {"AIRFLOW_CONN_FLUX_DEFAULT": connection(provisoner="direct")},
            "'provisoner' is not one of its fields, which are",
        ),
        ("", {"AIRFLOW_CONN_FLUX_DEFAULT": connection()}, "provisioner: is not set; give direct, operator, local or"),
        (
            "",
            {"AIRFLOW_CONN_FLUX_DEFAULT": connection(provisioner="direct", kubernetes_conn_id="no")},
            "kubernetes_conn_id: 'no' is not a connection",
        ),
        (
            "",
            {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor,airflow.providers.celery.executors.CeleryExecutor"},
            "provisioner: local cannot be used with CeleryExecutor",
        ),
    ],
    ids=["missing", "type", "field", "provisioner", "kubernetes", "executor"],
)
def test_what_is_wrong_is_told_by_name(python: Python, given: str, environ: dict[str, str], words: str) -> None:
    assert words in python(ASK + f"print(json.dumps(told({given})))", **environ)


def test_the_button_says_what_it_has_reached(python: Python, tmp_path: Path) -> None:
    ask = ASK + "print(json.dumps(FluxHook().test_connection()))"
    good, text = python(ask, AIRFLOW_CONN_FLUX_DEFAULT=connection(provisioner="local"))
    assert good and text.startswith("reached this machine (provisioner local)")
    kubeconfig = str(tmp_path / "none")
    bad, text = python(ask, AIRFLOW_CONN_FLUX_DEFAULT=connection(provisioner="direct", kubeconfig=kubeconfig))
    assert not bad and f"run.kubeconfig: '{kubeconfig}' is not a file" in text


def test_the_command_line_says_what_is_wrong_in_a_line(airflow: AirflowStack) -> None:
    done = airflow.command("flux", "reap", "--conn-id", "other")
    assert done.returncode != 0
    assert "airflow flux: flux_conn_id: 'other' is not a connection" in done.stderr
    assert "Traceback" not in done.stderr
