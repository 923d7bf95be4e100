"""Whether a namespace's ResourceQuotas and LimitRanges leave room for a MiniCluster: what `doctor` says of them. Pure.

The rules are those of Kubernetes' own admission (plugin/pkg/admission/limitranger, pkg/quota/v1/evaluator/core, 1.34).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, TypedDict

from executors.kube.objects import LimitItem, LimitRange, ResourceQuota, ScopeSelector
from executors.schema import quantity

Manifest = Mapping[str, Any]
Amounts = dict[str, Fraction]
Section = Literal["requests", "limits"]


class Container(TypedDict):
    """What a container counts for; ``stays``: together with the others, until the pod's end."""

    name: str
    requests: Amounts
    limits: Amounts
    stays: bool
    #: Of its pod: the PriorityClass's name.
    priority: str


#: A quota for one of these refuses a container that does not say how much of it it wants.
_MUST_BE_SAID = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
_RESOURCES = {
    "Job": "jobs.batch", "Pod": "pods", "Secret": "secrets", "ConfigMap": "configmaps", "Service": "services",
    "MiniCluster": "miniclusters.flux-framework.org",
}  # fmt: skip
#: Counted by these names too, without "count/".
_BARE = ("pods", "secrets", "configmaps", "services")


def room_problems(
    manifests: Sequence[Manifest], size: int, quotas: Sequence[ResourceQuota], ranges: Sequence[LimitRange]
) -> list[str]:
    """Why ``size`` pods of the Job among these manifests would not be admitted; empty where they would.

    ``quotas`` and ``ranges`` are the namespace's objects as the API server gives them.
    """
    [template] = [manifest["spec"]["template"]["spec"] for manifest in manifests if manifest["kind"] == "Job"]
    pods = [(_with_defaults(template, ranges), size)]
    pods += [(_with_defaults(manifest["spec"], ranges), 1) for manifest in manifests if manifest["kind"] == "Pod"]
    counts = Counter(_RESOURCES[manifest["kind"]] for manifest in manifests)
    counts["pods"] += size
    found = [problem for pod, _ in pods for one in ranges for problem in _range_problems(pod, one)]
    for quota in quotas:
        found += _quota_problems(quota, pods, counts)
    return list(dict.fromkeys(found))


# -- pods


def _with_defaults(spec: Manifest, ranges: Sequence[LimitRange]) -> list[Container]:
    """The containers, with the requests and limits that Kubernetes fills in."""
    made: list[Container] = []
    for kind in ("containers", "initContainers"):
        for one in spec.get(kind, []):
            given = one.get("resources", {})
            limits = dict(given.get("limits", {}))
            requests = {**limits, **given.get("requests", {})}
            for item in _items(ranges, "Container"):
                default = item.get("default", {})
                for_requests = {**default, **item.get("defaultRequest", {})}
                requests = {**for_requests, **requests}
                limits = {**default, **limits}
            sidecar = kind == "initContainers" and one.get("restartPolicy") == "Always"
            made.append(
                {
                    "name": one["name"],
                    "requests": _numbers(requests),
                    "limits": _numbers(limits),
                    "stays": kind == "containers" or sidecar,
                    "priority": spec.get("priorityClassName", ""),
                }
            )
    return made


def _numbers(amounts: Mapping[str, Any]) -> Amounts:
    return {name: quantity(amount) for name, amount in amounts.items()}


def _total(pod: Sequence[Container], section: Section) -> Amounts:
    """What a pod counts for: all that stay together, or the largest of those that run before them."""
    made: Amounts = {}
    for one in pod:
        if one["stays"]:
            for name, amount in one[section].items():
                made[name] = made.get(name, Fraction(0)) + amount
    for one in pod:
        if not one["stays"]:
            for name, amount in one[section].items():
                made[name] = max(made.get(name, Fraction(0)), amount)
    return made


# -- limit ranges


def _items(ranges: Sequence[LimitRange], kind: str) -> Iterator[LimitItem]:
    for limit_range in ranges:
        yield from (item for item in limit_range["spec"]["limits"] if item["type"] == kind)


def _range_problems(pod: Sequence[Container], limit_range: LimitRange) -> Iterator[str]:
    where = f"LimitRange {limit_range['metadata']['name']}"
    for item in _items([limit_range], "Container"):
        for one in pod:
            yield from _item_problems(item, one["requests"], one["limits"], f"{where}: container {one['name']}")
    for item in _items([limit_range], "Pod"):
        yield from _item_problems(item, _total(pod, "requests"), _total(pod, "limits"), f"{where}: a pod")


def _item_problems(item: LimitItem, requests: Amounts, limits: Amounts, where: str) -> Iterator[str]:
    for name, least in _numbers(item.get("min", {})).items():
        if name not in requests:
            yield f"{where} requests no {name}; the minimum is {_shown(least)}"
        elif requests[name] < least:
            yield f"{where} requests {name} {_shown(requests[name])}, less than the minimum {_shown(least)}"
    for name, most in _numbers(item.get("max", {})).items():
        if name not in limits:
            yield f"{where} has no limit for {name}; the maximum is {_shown(most)}"
        elif max(limits[name], requests.get(name, Fraction(0))) > most:
            yield f"{where} has {name} {_shown(limits[name])}, more than the maximum {_shown(most)}"
    for name, ratio in _numbers(item.get("maxLimitRequestRatio", {})).items():
        if not limits.get(name) or not requests.get(name):
            yield f"{where} needs a request and a limit for {name}, whose ratio is at most {_shown(ratio)}"
        elif limits[name] / requests[name] > ratio:
            yield f"{where} has a limit for {name} of more than {_shown(ratio)} times its request"


# -- quotas


def _quota_problems(
    quota: ResourceQuota, pods: Sequence[tuple[Sequence[Container], int]], counts: Counter[str]
) -> Iterator[str]:
    status = quota.get("status", {})
    hard = status.get("hard") or quota.get("spec", {}).get("hard", {})
    where = f"quota {quota['metadata']['name']}"
    scoped = _scopes(quota)
    mine = [(pod, number) for pod, number in pods if all(_in_scope(pod, one) for one in scoped)]
    wanted: Amounts = {} if scoped else _counted(counts)
    for pod, number in mine:
        for name, amount in _charged(pod).items():
            wanted[name] = wanted.get(name, Fraction(0)) + amount * number
    if scoped:
        for name in ("pods", "count/pods"):
            wanted[name] = Fraction(sum(number for _, number in mine))
    for name, most in hard.items():
        used = quantity(status.get("used", {}).get(name, 0))
        left = max(Fraction(0), quantity(most) - used)
        if wanted.get(name, Fraction(0)) > left:
            said = f"{_shown(wanted[name])} wanted, {_shown(left)} left of {most}"
            yield f"{where}: {name}: {said}"
        if name in _MUST_BE_SAID:
            unsaid = sorted({one["name"] for pod, _ in mine for one in pod if not _says(one, name)})
            if unsaid:
                yield f"{where}: {name}: must be set for each container, but is missing in {', '.join(unsaid)}"


def _counted(counts: Counter[str]) -> Amounts:
    made = {f"count/{name}": Fraction(number) for name, number in counts.items()}
    return made | {name: Fraction(counts[name]) for name in _BARE}


def _charged(pod: Sequence[Container]) -> Amounts:
    """What one pod counts for, by the names that quotas have for it."""
    requests, limits = _total(pod, "requests"), _total(pod, "limits")
    made = {f"requests.{name}": amount for name, amount in requests.items()}
    made |= {f"limits.{name}": amount for name, amount in limits.items()}
    return made | {name: requests[name] for name in ("cpu", "memory", "ephemeral-storage") if name in requests}


def _says(container: Container, name: str) -> bool:
    section, _, resource = name.rpartition(".")
    return resource in (container["limits"] if section == "limits" else container["requests"])


def _scopes(quota: ResourceQuota) -> list[ScopeSelector]:
    spec = quota.get("spec", {})
    plain: list[ScopeSelector] = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or []]
    return plain + list((spec.get("scopeSelector") or {}).get("matchExpressions") or [])


def _in_scope(pod: Sequence[Container], scope: ScopeSelector) -> bool:
    name = scope["scopeName"]
    sized = any((one["requests"].keys() | one["limits"].keys()) & {"cpu", "memory"} for one in pod)
    if name == "PriorityClass":
        mine, values = pod[0]["priority"], scope.get("values") or []
        by_operator = {
            "In": mine in values,
            "NotIn": mine not in values,
            "Exists": bool(mine),
            "DoesNotExist": not mine,
        }
        return by_operator.get(scope.get("operator", ""), False)
    # The Job has the deadline, not its pods.
    return {"NotTerminating": True, "NotBestEffort": sized, "BestEffort": not sized}.get(name, False)


def _shown(amount: Fraction) -> str:
    """A quantity for people, exact."""
    for suffix, factor in (("Gi", 1 << 30), ("Mi", 1 << 20)):
        if amount >= factor and not amount % factor:
            return f"{amount // factor}{suffix}"
    return str(amount) if amount.denominator == 1 else f"{float(amount * 1000):g}m"
