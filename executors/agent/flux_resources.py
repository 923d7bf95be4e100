"""What a resource set (R, RFC 20), a jobspec (RFC 14) and this machine say of nodes, cores, GPUs, tasks and memory."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Tuple

import flux.hostlist
import flux.idset


def lines_of(resource_set: Any) -> List[Tuple[int, str, int, int]]:
    """(rank, host, cores, gpus) of each node in an R object (RFC 20)."""
    if not resource_set:
        return []
    execution = resource_set["execution"]
    hosts = flux.hostlist.Hostlist(execution.get("nodelist", []))
    found = []
    for entry in execution["R_lite"]:
        children = entry["children"]
        cores = len(flux.idset.IDset(children.get("core", "")))
        gpus = len(flux.idset.IDset(children.get("gpu", "")))
        for rank in flux.idset.IDset(entry["rank"]):
            found.append((int(rank), cores, gpus))
    found.sort()
    return [
        (rank, str(hosts[index]) if index < len(hosts) else "", cores, gpus)
        for index, (rank, cores, gpus) in enumerate(found)
    ]


def nodes_of(resource_set: Any) -> str:
    try:
        nodes = resource_set["execution"]["nodelist"]
    except (KeyError, TypeError):
        return ""
    return ",".join(nodes)


def task_count(spec: Dict[str, Any]) -> int:
    count = spec["tasks"][0].get("count", {})
    if "total" in count:
        return int(count["total"])
    slots = 1
    for resource in spec["resources"]:
        while resource["type"] != "core":
            slots *= int(resource["count"])
            if resource["type"] == "slot":
                break
            resource = resource["with"][0]
    return slots * int(count.get("per_slot", 1))


def memory() -> int:
    """Of this machine, or of the control group that limits us to less, in bytes."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [whole]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as text:
                limits.append(int(text.read()))
        except (OSError, ValueError):
            pass  # the other version of control groups, or no limit ("max")
    return min(limits)
