"""Whether quotas and limit ranges leave room, as `doctor` says it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from executors.cli.room import room_problems
from executors.render import MiniCluster, Program, render_direct
from executors.spec import parse_spec

PROGRAM = Program(b"", (), 10.0, 10.0)


def quota(hard: dict[str, Any], used: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "team"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used or {}}}


def limits(kind: str = "Container", **item: Any) -> dict[str, Any]:
    return {"metadata": {"name": "house"}, "spec": {"limits": [{"type": kind, **item}]}}


def said(
    size: int = 2, *, quotas: Any = (), ranges: Any = (), resources: Any = None, patch: Any = None, **spec: Any
) -> list[str]:
    given = {"requests": {"cpu": 4, "memory": "8Gi"}} if resources is None else resources
    parsed = parse_spec({"size": size, "containers": [{"name": "main", "runFlux": True, "resources": given}], **spec})
    cluster = MiniCluster("run", "ns", replace(parsed, pod_patch=patch or {}))
    return room_problems(render_direct(cluster, PROGRAM, ""), size, list(quotas), list(ranges))


NO_VIEW: dict[str, Any] = {"flux": {"container": {"disable": True}}}


@pytest.mark.parametrize(
    ("hard", "used", "problem"),
    [
        ({"requests.cpu": "8"}, {}, None),
        ({"requests.cpu": "8"}, {"requests.cpu": "500m"}, "requests.cpu: 8 wanted, 7500m left of 8"),
        ({"cpu": "7"}, {}, "cpu: 8 wanted, 7 left of 7"),
        ({"memory": "20Gi"}, {"memory": "5Gi"}, "memory: 16Gi wanted, 15Gi left of 20Gi"),
        ({"pods": "2"}, {"pods": "1"}, "pods: 2 wanted, 1 left of 2"),
        ({"count/pods": 2}, {"count/pods": 2}, "count/pods: 2 wanted, 0 left of 2"),
        ({"count/jobs.batch": "0"}, {}, "count/jobs.batch: 1 wanted, 0 left of 0"),
        ({"secrets": "3", "count/secrets": "3"}, {"secrets": "3"}, "secrets: 1 wanted, 0 left of 3"),
        ({"configmaps": "1", "services": "1"}, {}, None),
        ({"requests.nvidia.com/gpu": "0"}, {}, None),
        ({"persistentvolumeclaims": "0", "count/deployments.apps": "0"}, {}, None),
        ({"limits.cpu": "100"}, {}, "limits.cpu: must be set for each container, but is missing in main"),
    ],
)
def test_a_quota(hard: dict[str, Any], used: dict[str, Any], problem: str | None) -> None:
    found = said(quotas=[quota(hard, used)], **NO_VIEW)
    assert found == ([] if problem is None else [f"quota team: {problem}"])


def test_every_container_counts_and_what_runs_before_the_others_only_where_it_is_larger() -> None:
    view = {"container": {"resources": {"requests": {"cpu": 20, "memory": 1}}}}
    beside = {"name": "beside", "image": "x", "resources": {"requests": {"cpu": 1, "memory": "1Gi"}}}
    main = {"name": "main", "runFlux": True, "resources": {"requests": {"cpu": 4, "memory": "8Gi"}}}
    more = {"flux": view, "containers": [main, beside]}
    found = said(3, quotas=[quota({"requests.cpu": 59, "requests.memory": "26Gi"})], **more)
    assert found == [
        "quota team: requests.cpu: 60 wanted, 59 left of 59",
        "quota team: requests.memory: 27Gi wanted, 26Gi left of 26Gi",
    ]


def test_services_and_gpus_count_and_limits_are_requests_where_none_is_given() -> None:
    resources = {"limits": {"nvidia.com/gpu": 2, "cpu": 1}}
    services = [{"name": "db", "image": "x", "resources": {"limits": {"cpu": 3}}}]
    hard = {"requests.nvidia.com/gpu": 3, "pods": 2, "requests.cpu": 4, "limits.cpu": 4}
    found = said(2, quotas=[quota(hard)], resources=resources, services=services, **NO_VIEW)
    assert [one.split(": ")[1] for one in found] == ["requests.nvidia.com/gpu", "pods", "requests.cpu", "limits.cpu"]


@pytest.mark.parametrize(
    ("scope", "counts"),
    [
        ({"scopes": ["NotTerminating"]}, True),
        ({"scopes": ["Terminating"]}, False),
        ({"scopes": ["NotBestEffort"]}, True),
        ({"scopes": ["BestEffort"]}, False),
        ({"scopes": ["NotTerminating", "BestEffort"]}, False),
        ({"scopes": ["CrossNamespacePodAffinity"]}, False),
        ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}}, True),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["low"]}]
                }
            },
            False,
        ),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "NotIn", "values": ["low"]}]
                }
            },
            True,
        ),
    ],
    ids=str,
)
def test_a_quotas_scope_says_whether_it_counts(scope: dict[str, Any], counts: bool) -> None:
    patch = {"spec": {"priorityClassName": "high"}}
    assert bool(said(quotas=[quota({"pods": 1}, **scope)], patch=patch, **NO_VIEW)) is counts


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ({"max": {"cpu": "2"}, "default": {"cpu": 9}}, "container main has cpu 9, more than the maximum 2"),
        ({"max": {"cpu": "2"}}, "container main has no limit for cpu; the maximum is 2"),
        ({"min": {"memory": "16Gi"}}, "container main requests memory 8Gi, less than the minimum 16Gi"),
        ({"min": {"ephemeral-storage": "1Gi"}}, "container main requests no ephemeral-storage; the minimum is 1Gi"),
        (
            {"maxLimitRequestRatio": {"cpu": 2}, "default": {"cpu": 9}},
            "container main has a limit for cpu of more than 2 times its request",
        ),
        ({"maxLimitRequestRatio": {"cpu": 2}}, "container main needs a request and a limit for cpu"),
        ({"kind": "Pod", "max": {"memory": "9Gi"}}, "a pod has no limit for memory; the maximum is 9Gi"),
        ({"kind": "PersistentVolumeClaim", "max": {"storage": "1"}}, None),
        ({"default": {"cpu": 5}, "min": {"cpu": 1}, "max": {"cpu": 5}}, None),
    ],
)
def test_a_limit_range(item: dict[str, Any], problem: str | None) -> None:
    found = said(ranges=[limits(**item)], **NO_VIEW)
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1 and found[0].startswith(f"LimitRange house: {problem}")


def test_what_a_limit_range_fills_in_counts_in_quotas() -> None:
    fill = limits(default={"cpu": 3}, defaultRequest={"cpu": 2})
    asked = quota({"requests.cpu": 3, "limits.cpu": 5})
    assert said(quotas=[asked], ranges=[fill], resources={}, **NO_VIEW) == [
        "quota team: requests.cpu: 4 wanted, 3 left of 3",
        "quota team: limits.cpu: 6 wanted, 5 left of 5",
    ]
