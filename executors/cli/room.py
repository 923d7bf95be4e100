"""Whether a namespace's ResourceQuotas and LimitRanges leave room for a MiniCluster: what `doctor` says of them. Pure.

The rules are those of Kubernetes' own admission (plugin/pkg/admission/limitranger, pkg/quota/v1/evaluator/core, 1.34).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from executors.schema import quantity

Object = Mapping[str, Any]
Amounts = dict[str, Fraction]

#: A quota for one of these refuses a container that does not say how much of it it wants.
_MUST_BE_SAID = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
_RESOURCES = {
    "Job": "jobs.batch", "Pod": "pods", "Secret": "secrets", "ConfigMap": "configmaps", "Service": "services",
    "MiniCluster": "miniclusters.flux-framework.org",
}  # fmt: skip
#: Counted by these names too, without "count/".
_BARE = ("pods", "secrets", "configmaps", "services")


def room_problems(
    manifests: Sequence[Object], size: int, quotas: Sequence[Object], ranges: Sequence[Object]
) -> list[str]:
    """Why ``size`` pods of the Job among these manifests would not be admitted; empty where they would.

    ``quotas`` and ``ranges`` are the namespace's objects as the API server gives them.
    """
    [template] = [one["spec"]["template"]["spec"] for one in manifests if one["kind"] == "Job"]
    pods = [(_with_defaults(template, ranges), size)]
    pods += [(_with_defaults(one["spec"], ranges), 1) for one in manifests if one["kind"] == "Pod"]
    counts = Counter(_RESOURCES[one["kind"]] for one in manifests)
    counts["pods"] += size
    found = [problem for pod, _ in pods for one in ranges for problem in _range_problems(pod, one)]
    for quota in quotas:
        found += _quota_problems(quota, pods, counts)
    return list(dict.fromkeys(found))


# -- pods


def _with_defaults(spec: Object, ranges: Sequence[Object]) -> list[Object]:
    """The containers, with the requests and limits that Kubernetes fills in."""
    made: list[Object] = []
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


def _total(pod: Sequence[Object], section: str) -> Amounts:
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


def _items(ranges: Sequence[Object], kind: str) -> Iterator[Object]:
    for one in ranges:
        yield from (item for item in one["spec"]["limits"] if item["type"] == kind)


def _range_problems(pod: Sequence[Object], limit_range: Object) -> Iterator[str]:
    where = f"LimitRange {limit_range['metadata']['name']}"
    for item in _items([limit_range], "Container"):
        for one in pod:
            yield from _item_problems(item, one["requests"], one["limits"], f"{where}: container {one['name']}")
    for item in _items([limit_range], "Pod"):
        yield from _item_problems(item, _total(pod, "requests"), _total(pod, "limits"), f"{where}: a pod")


def _item_problems(item: Object, requests: Amounts, limits: Amounts, where: str) -> Iterator[str]:
    for name, least in _numbers(item.get("min", {})).items():
        if name not in requests:
            yield f"{where} requests no {name}, and at least {_shown(least)} is wanted"
        elif requests[name] < least:
            yield f"{where} requests {name} {_shown(requests[name])}, less than the least, {_shown(least)}"
    for name, most in _numbers(item.get("max", {})).items():
        if name not in limits:
            yield f"{where} has no limit for {name}, and at most {_shown(most)} is allowed"
        elif max(limits[name], requests.get(name, Fraction(0))) > most:
            yield f"{where} wants {name} {_shown(limits[name])}, more than the most, {_shown(most)}"
    for name, ratio in _numbers(item.get("maxLimitRequestRatio", {})).items():
        if not limits.get(name) or not requests.get(name):
            yield f"{where} must request {name} and limit it, for their ratio to be at most {_shown(ratio)}"
        elif limits[name] / requests[name] > ratio:
            yield f"{where} has a limit for {name} of more than {_shown(ratio)} times its request"


# -- quotas


def _quota_problems(quota: Object, pods: Sequence[tuple[Sequence[Object], int]], counts: Counter[str]) -> Iterator[str]:
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
                yield f"{where}: {name}: must be given for each container, and is not for {', '.join(unsaid)}"


def _counted(counts: Counter[str]) -> Amounts:
    made = {f"count/{name}": Fraction(number) for name, number in counts.items()}
    return made | {name: Fraction(counts[name]) for name in _BARE}


def _charged(pod: Sequence[Object]) -> Amounts:
    """What one pod counts for, by the names that quotas have for it."""
    requests, limits = _total(pod, "requests"), _total(pod, "limits")
    made = {f"requests.{name}": amount for name, amount in requests.items()}
    made |= {f"limits.{name}": amount for name, amount in limits.items()}
    return made | {name: requests[name] for name in ("cpu", "memory", "ephemeral-storage") if name in requests}


def _says(container: Object, name: str) -> bool:
    section, _, resource = name.rpartition(".")
    return resource in container[section or "requests"]


def _scopes(quota: Object) -> list[Object]:
    spec = quota.get("spec", {})
    plain = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or []]
    return plain + list((spec.get("scopeSelector") or {}).get("matchExpressions") or [])


def _in_scope(pod: Sequence[Object], scope: Object) -> bool:
    name = scope["scopeName"]
    sized = any(set(one[section]) & {"cpu", "memory"} for one in pod for section in ("requests", "limits"))
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
