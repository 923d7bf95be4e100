"""Searches everything that a run leaves, shows or passes on for its secrets, in plain, base64 and URL form."""

from __future__ import annotations

import base64
import json
import logging

import pytest

from executors import ConfigError
from tests.cluster.runs import Runs, job, output_of, spec
from tests.cluster.testbed.cluster import Cluster
from tests.support.secrets import SECRET, assert_absent


def test_a_secret_environment_is_nowhere_but_in_the_job(
    cluster: Cluster, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    session = runs.open(spec(runs.image, size=2), report_progress=said.append)
    both = output_of(session, "sh", "-c", 'printf %s "$TOKEN" | md5sum', nodes=2, tasks=2, secret_env={"TOKEN": SECRET})
    assert len(set(both.split())) == 2  # the same digest twice, and a dash
    specs = output_of(session, "sh", "-c", "for id in $(flux jobs -a -n -o {id}); do flux job info $id jobspec; done")
    processes = output_of(session, "sh", "-c", "ps axww -o args; cat /proc/1/environ | tr '\\0' '\\n'")
    # Flux's own store too; this command is in it, and does not hold the text that it looks for.
    files = output_of(session, "sh", "-c", "grep -rF 8f2''a91 /var/tmp /tmp || true")
    everything = runs.bed.kubectl(
        "get", "all,events,configmaps,jobs,pods,services", f"--namespace={runs.namespace}", "--output=json"
    )
    logs = "".join(runs.logs(session.run_name, at) for at in (0, 1))
    failed = job(session, "/no/such/program", secret_env={"TOKEN": SECRET})
    session.close()
    assert_absent(specs, "jobspecs")
    assert_absent(processes, "process lists")
    assert files == ""
    assert_absent(everything, "objects and events")
    assert_absent(logs, "the pods' logs")
    assert_absent(repr(failed) + failed.describe(), "an error")
    assert_absent(caplog.text + "".join(said), "the client's log")
    assert_absent(json.dumps(cluster.audit_events()), "the audit log")


def test_the_certificate_is_in_its_secret_only(cluster: Cluster, runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    session = runs.open()
    text = runs.bed.kubectl("get", "secrets", f"--namespace={runs.namespace}", "--output=json")
    [secret] = json.loads(text)["items"]
    certificate = base64.b64decode(secret["data"]["curve.cert"]).decode()
    key = certificate.split("secret-key = ")[1].split('"')[1]
    others = runs.bed.kubectl("get", "all,events,configmaps,jobs", f"--namespace={runs.namespace}", "--output=json")
    logs = runs.logs(session.run_name, 0)
    # The pod has no volume, so that the certificate comes by its container's environment.
    assert "volumes" not in runs.pod(session.run_name, 0)["spec"]
    environments = output_of(session, "sh", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n'")
    assert "FLUXOP_ROOT=" in environments, "those of our processes too"
    for where, found in (
        ("objects", others),
        ("logs", logs),
        ("the client's log", caplog.text),
        ("the environment of a process", environments),
    ):
        assert_absent(found, where, key)


def test_the_clients_token_is_in_no_log(cluster: Cluster, runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    import yaml

    runs.kubeconfig = cluster.service_account_kubeconfig(runs.namespace, "client")
    cluster.kubectl(
        *("create", "rolebinding", "client", "--clusterrole=admin", f"--namespace={runs.namespace}"),
        f"--serviceaccount={runs.namespace}:client",
    )
    token = yaml.safe_load(runs.kubeconfig.read_text())["users"][0]["user"]["token"]
    caplog.set_level(logging.DEBUG)
    session = runs.open()
    assert job(session, "true").ok
    session.close()
    assert token not in caplog.text and token[-40:] not in caplog.text


def test_values_of_environments_are_in_no_error(runs: Runs) -> None:
    first = spec(runs.image, container={"environment": {"PASSWORD": SECRET}})
    other = spec(runs.image, container={"environment": {"PASSWORD": SECRET + "x"}})
    runs.open(first, run_id="twice")
    with pytest.raises(ConfigError) as caught:
        runs.open(other, run_id="twice")
    assert "minicluster.containers[0].environment.PASSWORD" in str(caught.value)
    assert_absent(str(caught.value), "the error")
