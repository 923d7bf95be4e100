"""What resource sets (R, RFC 20) and this machine say of nodes, cores, GPUs and memory."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Tuple

import flux.hostlist
import flux.idset

from ..wire import NodeSummary


def node_lines(resource_set: Any) -> List[Tuple[int, str, int, int]]:
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


def nodes(status: Dict[str, Any], scheduled: Dict[str, Any]) -> List[NodeSummary]:
    """What `Engine.resources` says of each node: from the answers of Flux's resource module and of its scheduler."""
    drained: Dict[int, str] = {}
    for ranks, drain in (status.get("drain") or {}).items():
        drained.update((rank, drain.get("reason") or "") for rank in flux.idset.IDset(ranks))
    down = {rank for rank, _, _, _ in node_lines(scheduled.get("down"))}
    busy = {rank for rank, _, _, _ in node_lines(scheduled.get("allocated"))}
    here = os.uname().nodename
    return [
        {
            "rank": rank, "host": host, "cores": cores, "gpus": gpus, "up": rank not in down,
            "drained": rank in drained, "drain_reason": drained.get(rank, ""), "busy": rank in busy,
            "memory": memory() if host == here else None,
        }
        for rank, host, cores, gpus in node_lines(scheduled.get("all"))
    ]  # fmt: skip


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
