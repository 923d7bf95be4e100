"""The Roles in docs/ are enough, and nothing in them is too much."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from executors import ExecutorsError, join_session
from executors.kube import ClusterAccess, connect
from executors.provision.kubernetes.rights import RIGHTS, missing_rights
from tests.cluster import rights
from tests.cluster.rights import role, without
from tests.cluster.runs import Runs, job
from tests.cluster.testbed.cluster import Cluster


@pytest.fixture
def grant(cluster: Cluster, runs: Runs) -> Callable[[dict[str, Any]], None]:
    return partial(rights.grant, cluster, runs)


@pytest.mark.parametrize("mode", ["direct", "operator"])
def test_the_roles_in_the_documents_are_the_rights_that_doctor_asks_for(mode: str) -> None:
    said = {
        (group, resource, verb)
        for rule in role(mode)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert said == {(right.group, right.resource, verb) for right in RIGHTS[mode] for verb in right.verbs}


def test_a_whole_run_under_exactly_the_role(runs: Runs, grant: Any) -> None:
    grant(role("direct"))
    session = runs.open()
    assert job(session, "true").ok
    session.close()
    assert runs.left() == []


def test_the_rights_are_asked_for_one_by_one(runs: Runs, grant: Any) -> None:
    grant(without(role("direct"), "services", "create"))
    api = connect(ClusterAccess(str(runs.kubeconfig)))
    assert [(verb, right.resource) for verb, right in missing_rights(api, runs.namespace, RIGHTS["direct"])] == [
        ("create", "services")
    ]


@pytest.mark.parametrize(
    ("resource", "verb", "words"),
    [
        ("jobs", "create", 'cannot create resource "jobs"'),
        ("jobs", "patch", 'cannot patch resource "jobs"'),
        ("jobs", "watch", 'cannot watch resource "jobs"'),
        ("jobs", "list", 'cannot list resource "jobs"'),
        ("secrets", "create", 'cannot create resource "secrets"'),
        ("configmaps", "create", 'cannot create resource "configmaps"'),
        ("services", "create", 'cannot create resource "services"'),
        ("pods", "list", 'cannot list resource "pods"'),
        ("pods", "watch", 'cannot watch resource "pods"'),
        ("events", "list", 'cannot list resource "events"'),
        ("events", "watch", 'cannot watch resource "events"'),
        ("pods/exec", "get", "on pods/exec is needed"),
    ],
)
def test_one_verb_less_fails_with_a_message_that_names_it(
    runs: Runs, grant: Any, resource: str, verb: str, words: str
) -> None:
    grant(without(role("direct"), resource, verb))
    with pytest.raises(ExecutorsError, match=words.replace("(", r"\(")):
        runs.open()
    runs.wait_nothing_left()


def test_without_the_right_to_delete_the_run_says_so_and_ends_by_itself(
    runs: Runs, grant: Any, caplog: pytest.LogCaptureFixture
) -> None:
    grant(without(role("direct"), "jobs", "delete"))
    session = runs.open(ttl=1)
    assert job(session, "true").ok
    session.close()
    assert 'cannot delete resource "jobs"' in caplog.text and "ends by its own time-outs" in caplog.text
    runs.wait_nothing_left()


@pytest.mark.parametrize(("resource", "verb"), [("jobs", "get"), ("pods", "get"), ("pods/log", "get")])
def test_rights_that_only_errors_need_do_not_stop_a_run(runs: Runs, grant: Any, resource: str, verb: str) -> None:
    grant(without(role("direct"), resource, verb))
    session = runs.open()
    assert job(session, "true").ok
    session.close()
    runs.wait_nothing_left()


def test_a_triggerer_joins_under_its_role_and_makes_nothing(runs: Runs, grant: Any) -> None:
    administrator = runs.open(run_id="joined")
    grant(role("airflow-triggerer"))
    session = join_session(administrator.run_name, runs.config(), environ={})
    try:
        assert job(session, "true").ok
    finally:
        session.leave()
    with pytest.raises(ExecutorsError, match=r'cannot create resource "jobs"'):
        runs.open(run_id="another")
