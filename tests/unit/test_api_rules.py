"""What the API server would refuse is said before anything is created, each problem with its path."""

from __future__ import annotations

from typing import Any

import pytest

from executors.api_rules import api_problems, label_key_problem, label_value_problem
from executors.spec import parse_spec

LONG = "x" * 64


def problems(document: Any) -> list[str]:
    return api_problems(parse_spec({"containers": [{}], **document}))


@pytest.mark.parametrize(
    ("key", "good"),
    [
        ("a", True), ("A-b_c.d", True), ("example.org/Name", True), ("x" * 63, True), ("9", True),
        ("", False), ("-a", False), ("a-", False), ("a b", False), ("ä", False), (LONG, False), ("/a", False),
        ("Example.org/a", False), ("a/b/c", False), ("example.org/", False), ("a\n", False), ("x" * 254 + "/a", False),
    ],
)  # fmt: skip
def test_keys_of_labels(key: str, good: bool) -> None:
    assert (label_key_problem(key) is None) is good


@pytest.mark.parametrize(
    ("value", "good"),
    [("", True), ("a", True), ("1.2_3-4", True), ("x" * 63, True), (LONG, False), ("a/b", False), ("a:", False),
     (" ", False), ("a\n", False)],
)  # fmt: skip
def test_values_of_labels(value: str, good: bool) -> None:
    assert (label_value_problem(value) is None) is good


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"jobLabels": {"a b": "c"}}, "jobLabels.a b"),
        ({"jobLabels": {"a": "c d"}}, "jobLabels.a"),
        ({"pod": {"labels": {"a": LONG}}}, "pod.labels.a"),
        ({"pod": {"labels": {"app.kubernetes.io/name": "mine"}}}, "pod.labels.app.kubernetes.io/name"),
        ({"jobLabels": {"batch.kubernetes.io/job-name": "mine"}}, "jobLabels.batch.kubernetes.io/job-name"),
        ({"pod": {"annotations": {"a b": ""}}}, "pod.annotations.a b"),
        ({"pod": {"annotations": {"a": "x" * 300_000}}}, "pod.annotations"),
        ({"pod": {"nodeSelector": {"zone": "a/b"}}}, "pod.nodeSelector.zone"),
        ({"pod": {"nodeAffinity": {"zone": []}}}, "pod.nodeAffinity.zone"),
        ({"pod": {"nodeAffinity": {"zone": ["a", "b c"]}}}, "pod.nodeAffinity.zone"),
        ({"pod": {"tolerations": [{"operator": "Exists"}, {"key": "a b"}]}}, "pod.tolerations[1].key"),
        ({"pod": {"tolerations": [{"value": "a"}]}}, "pod.tolerations[0].operator"),
        ({"pod": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}}, "pod.tolerations[0].value"),
        ({"pod": {"tolerations": [{"key": "a", "operator": "Equal", "value": "b c"}]}}, "pod.tolerations[0].value"),
        ({"pod": {"serviceAccountName": "Me"}}, "pod.serviceAccountName"),
        ({"pod": {"runtimeClassName": "g_visor"}}, "pod.runtimeClassName"),
        ({"pod": {"securityContext": {"fsGroup": 2**31}}}, "pod.securityContext.fsGroup"),
        ({"pod": {"securityContext": {"supplementalGroups": [1, 2**31]}}}, "pod.securityContext.supplementalGroups[1]"),
        ({"pod": {"securityContext": {"runAsNonRoot": True, "runAsUser": 0}}}, "pod.securityContext.runAsUser"),
        (
            {"pod": {"securityContext": {"seccompProfile": {"type": "Localhost"}}}},
            "pod.securityContext.seccompProfile.localhostProfile",
        ),
        (
            {"pod": {"securityContext": {"sysctls": [{"name": "Net.core", "value": "1"}]}}},
            "pod.securityContext.sysctls[0].name",
        ),
        ({"flux": {"container": {"name": "a.b"}}}, "flux.container.name"),
        ({"flux": {"container": {"resources": {"requests": {"cpus": 1}}}}}, "flux.container.resources.requests.cpus"),
        ({"services": [{"name": "a", "image": "x "}]}, "services[0].image"),
    ],
)
def test_a_pods_fields(document: Any, path: str) -> None:
    [problem] = problems(document)
    assert problem.startswith(f"minicluster.{path}: ")


@pytest.mark.parametrize(
    ("container", "path"),
    [
        ({"image": " a"}, "image"),
        ({"imagePullSecret": "A"}, "imagePullSecret"),
        ({"secrets": {"A": {"name": "a_b", "key": "k"}}}, "secrets.A.name"),
        ({"secrets": {"A": {"name": "a", "key": "k/l"}}}, "secrets.A.key"),
        ({"environment": {"..A": "b"}}, "environment"),
        ({"resources": {"requests": {"cpu": -1}}}, "resources.requests.cpu"),
        ({"resources": {"limits": {"memory": "-1Gi"}}}, "resources.limits.memory"),
        ({"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}}, "resources.requests.cpu"),
        ({"resources": {"limits": {"gpu": 1}}}, "resources.limits.gpu"),
        ({"resources": {"limits": {"nvidia.com/gpu": "500m"}}}, "resources.limits.nvidia.com/gpu"),
        ({"resources": {"requests": {"nvidia.com/gpu": 1}}}, "resources.limits.nvidia.com/gpu"),
        (
            {"resources": {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}},
            "resources.requests.nvidia.com/gpu",
        ),
        ({"resources": {"limits": {"hugepages-2Mi": "4Mi"}}}, "resources"),
        ({"resources": {"limits": {"a b": 1}}}, "resources.limits.a b"),
        ({"securityContext": {"runAsUser": 2**40}}, "securityContext.runAsUser"),
        (
            {"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}},
            "securityContext.allowPrivilegeEscalation",
        ),
        ({"volumes": {"v": {"claimName": "A", "path": "/a"}}}, "volumes.v.claimName"),
        ({"volumes": {"v": {"hostPath": "/a/../b", "path": "/a"}}}, "volumes.v.hostPath"),
        ({"volumes": {"v": {"emptyDir": True, "path": "/a:b"}}}, "volumes.v.path"),
        ({"volumes": {"v": {"emptyDir": True, "emptyDirMedium": "Disk", "path": "/a"}}}, "volumes.v.emptyDirMedium"),
        (
            {"volumes": {"v": {"emptyDir": True, "emptyDirSizeLimit": "-1", "path": "/a"}}},
            "volumes.v.emptyDirSizeLimit",
        ),
        ({"volumes": {"v": {"configMapName": "a", "items": {"k": "/l"}, "path": "/a"}}}, "volumes.v.items.k"),
        (
            {"volumes": {"v": {"emptyDir": True, "path": "/a"}, "w": {"emptyDir": True, "path": "/a"}}},
            "volumes.w.path",
        ),
    ],
)
def test_a_containers_fields(container: Any, path: str) -> None:
    [problem] = problems({"containers": [container]})
    assert problem.startswith(f"minicluster.containers[0].{path}: ")


def test_every_problem_is_said_at_once() -> None:
    document = {
        "jobLabels": {"a b": "c d"},
        "pod": {"tolerations": [{}, {}], "nodeSelector": {"a": "b c"}},
        "containers": [{"image": " x", "resources": {"limits": {"gpu": -1}}}],
    }
    assert len(problems(document)) == 8


def test_what_clusters_take_is_taken() -> None:
    document = {
        "jobLabels": {"kueue.x-k8s.io/queue-name": "user-queue"},
        "pod": {
            "labels": {"team": "", "example.org/Cost.Center": "42"},
            "annotations": {"Example.org/Note": "any text\n"},
            "tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"}],
            "nodeAffinity": {"topology.kubernetes.io/zone": ["eu-1a", "eu-1b"]},
        },
        "containers": [
            {
                "resources": {
                    "requests": {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": 1, "hugepages-2Mi": "4Mi"},
                    "limits": {"cpu": 2, "nvidia.com/gpu": "1", "hugepages-2Mi": "4Mi"},
                }
            }
        ],
    }
    assert problems(document) == []
