"""A kubeconfig whose user is a credential plugin (`exec`): a program that prints tokens that end, or a certificate."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from executors import ConfigError, JobRequest, Outcome
from tests.cluster.proxy import Proxy
from tests.cluster.runs import LIMIT, Runs, job
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.objects import KubectlError
from tests.cluster.testbed.waiting import wait_until

VERSION = "client.authentication.k8s.io/v1"
ACCOUNT = "worker"


class Plugin:
    """A program that prints the credential which the test has laid out, and counts how often it is asked."""

    def __init__(self, directory: Path) -> None:
        self._answer = directory / "answer.json"
        self._calls = directory / "calls"
        self._calls.touch()
        self.program = directory / "plugin"
        self._failure = directory / "failure"
        self.program.write_text(
            f'#!/bin/sh\necho x >>"{self._calls}"\n'
            f'rm "{self._failure}" 2>/dev/null && exit 1\n'
            f'exec cat "{self._answer}"\n'
        )
        self.program.chmod(0o755)

    @property
    def calls(self) -> int:
        return len(self._calls.read_text().splitlines())

    def gives(self, *, expires_in: float = 3600, **credential: str) -> None:
        """``expires_in``: seconds. The credential is ``token``, or ``clientCertificateData`` and ``clientKeyData``."""
        ends = (datetime.now(UTC) + timedelta(seconds=expires_in)).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = {"expirationTimestamp": ends, **credential}
        made = self._answer.with_suffix(".new")
        made.write_text(json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": status}))
        made.rename(self._answer)

    def fails(self) -> None:
        """As when nobody is logged in any more: `cat` finds nothing, and complains."""
        self._answer.unlink(missing_ok=True)

    def fails_once(self) -> None:
        """Its next answer is a failure."""
        self._failure.touch()

    @property
    def is_to_fail(self) -> bool:
        return self._failure.exists()

    def kubeconfig(self, document: dict[str, Any]) -> dict[str, Any]:
        """A bed's kubeconfig as a user who has this plugin."""
        [user] = document["users"]
        asks = {"apiVersion": VERSION, "command": str(self.program), "interactiveMode": "Never"}
        return {**document, "users": [{**user, "user": {"exec": asks}}]}


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


@pytest.fixture
def document(cluster: Cluster, runs: Runs, plugin: Plugin) -> dict[str, Any]:
    """The kubeconfig of a service account that may do all in the namespace, by the plugin."""
    path = cluster.service_account_kubeconfig(runs.namespace, ACCOUNT)
    cluster.kubectl(
        *("create", "rolebinding", ACCOUNT, "--clusterrole=admin", f"--serviceaccount={runs.namespace}:{ACCOUNT}"),
        f"--namespace={runs.namespace}",
    )
    return plugin.kubeconfig(yaml.safe_load(path.read_text()))


class Tokens:
    """Tokens of the account that can be taken back: each ends with the Secret to which it is bound."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}"
        self._namespace = namespace

    def make(self, name: str) -> str:
        secret = self._cluster.api.post(f"{self._path}/secrets", {"metadata": {"name": name}})
        bound = {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": secret["metadata"]["uid"]}
        request = {"spec": {"expirationSeconds": 3600, "boundObjectRef": bound}}
        made = self._cluster.api.post(f"{self._path}/serviceaccounts/{ACCOUNT}/token", request)
        return str(made["status"]["token"])

    def take_back(self, name: str, token: str) -> None:
        """Returns when the API server, which remembers for some seconds whom it has let in, takes it no more."""
        self._cluster.api.delete(f"{self._path}/secrets/{name}")
        wait_until("the token to be refused", lambda: self._refused(token), LIMIT)

    def _refused(self, token: str) -> bool:
        # Without the administrator's certificate, which would count before the token.
        anonymous = yaml.safe_load(self._cluster.kubeconfig.read_text())
        anonymous["users"][0]["user"] = {"token": token}
        path = self._cluster.directory / f"{self._namespace}-refused.kubeconfig"
        path.write_text(yaml.safe_dump(anonymous))
        try:
            self._cluster.kubectl("get", "pods", f"--namespace={self._namespace}", kubeconfig=path)
        except KubectlError as refusal:
            return "Unauthorized" in str(refusal) or "must be logged in" in str(refusal)
        return False


def left(runs: Runs) -> list[str]:
    """What is left of the run: all but the Secrets that the test's tokens hang on."""
    return [name for name in runs.left() if name not in ("secret/first", "secret/second")]


def write(runs: Runs, directory: Path, document: dict[str, Any]) -> None:
    runs.kubeconfig = directory / "plugin.kubeconfig"
    runs.kubeconfig.write_text(yaml.safe_dump(document))


def test_a_token_that_ends_is_asked_for_again_in_time_and_never_refused(
    cluster: Cluster, runs: Runs, plugin: Plugin, document: dict[str, Any], tmp_path: Path
) -> None:
    write(runs, tmp_path, document)
    tokens = Tokens(cluster, runs.namespace)
    plugin.gives(token=tokens.make("first"), expires_in=2)
    session = runs.open()
    asked = plugin.calls
    plugin.gives(token=tokens.make("second"))
    assert job(session, "true").ok
    session.close()
    assert left(runs) == [] and plugin.calls > asked
    codes = [
        event["responseStatus"]["code"]
        for event in cluster.audit_events(runs.namespace)
        if ACCOUNT in event["user"].get("username", "") and "responseStatus" in event
    ]
    assert codes and 401 not in codes


def test_a_token_that_is_taken_back_during_a_run_is_asked_for_anew(
    cluster: Cluster, runs: Runs, plugin: Plugin, document: dict[str, Any], tmp_path: Path
) -> None:
    """The plugin said that it holds for an hour. The stream is cut when it does not, and then the run ends."""
    tokens = Tokens(cluster, runs.namespace)
    first = tokens.make("first")
    plugin.gives(token=first)
    with Proxy(cluster) as proxy:
        runs.kubeconfig = proxy.kubeconfig(tmp_path, document)
        session = runs.open()
        [handle] = session.submit([JobRequest(argv=["sleep", "2"])])
        wait_until("the job to run", lambda: handle.state == "RUN", LIMIT)
        plugin.gives(token=tokens.make("second"))
        tokens.take_back("first", first)
        proxy.cut()
        assert handle.result(LIMIT).outcome is Outcome.COMPLETED
        assert job(session, "true").ok
        session.close()
    assert left(runs) == []


def test_a_plugin_that_fails_for_a_while_only_delays(
    cluster: Cluster, runs: Runs, plugin: Plugin, document: dict[str, Any], tmp_path: Path
) -> None:
    """As when somebody has to log in again: jobs go on, and the stream is taken up when there is a token."""
    tokens = Tokens(cluster, runs.namespace)
    first = tokens.make("first")
    plugin.gives(token=first)
    with Proxy(cluster) as proxy:
        runs.kubeconfig = proxy.kubeconfig(tmp_path, document)
        session = runs.open()
        [handle] = session.submit([JobRequest(argv=["sleep", "1"])])
        tokens.take_back("first", first)
        plugin.fails()
        asked = plugin.calls
        proxy.cut()
        wait_until("another attempt", lambda: plugin.calls > asked + 1, LIMIT)
        plugin.gives(token=tokens.make("second"))
        assert handle.result(LIMIT).outcome is Outcome.COMPLETED
        session.close()
    assert left(runs) == []


def test_a_plugin_that_fails_when_the_run_ends_does_not_keep_it_from_ending(
    cluster: Cluster, runs: Runs, plugin: Plugin, document: dict[str, Any], tmp_path: Path
) -> None:
    write(runs, tmp_path, document)
    tokens = Tokens(cluster, runs.namespace)
    first = tokens.make("first")
    plugin.gives(token=first)
    session = runs.open()
    second = tokens.make("second")
    tokens.take_back("first", first)
    plugin.gives(token=second)
    plugin.fails_once()
    session.close()
    assert not plugin.is_to_fail
    assert left(runs) == []


def test_a_plugin_that_gives_nothing_is_named_at_the_start(
    runs: Runs, plugin: Plugin, document: dict[str, Any], tmp_path: Path
) -> None:
    write(runs, tmp_path, document)
    plugin.fails()
    with pytest.raises(ConfigError, match=r"the exec of the kubeconfig .* gave no credentials"):
        runs.open()


def test_a_plugin_that_gives_a_certificate(
    cluster: Cluster, runs: Runs, plugin: Plugin, document: dict[str, Any], tmp_path: Path
) -> None:
    cluster.pki.client("by-plugin", user="somebody", group="system:masters")
    stem = cluster.pki.directory / "by-plugin"
    plugin.gives(
        clientCertificateData=stem.with_suffix(".crt").read_text(), clientKeyData=stem.with_suffix(".key").read_text()
    )
    write(runs, tmp_path, document)
    session = runs.open()
    assert job(session, "true").ok
    session.close()
    assert left(runs) == []
