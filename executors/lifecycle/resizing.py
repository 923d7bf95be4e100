"""Another number of brokers, without a job on a rank that goes, where its jobs end in time."""

from __future__ import annotations

import math
from collections.abc import Callable

from executors.client import Client
from executors.errors import ConfigError, ExecutorsError
from executors.provision import Resizable

#: Why ranks are drained that are about to go.
_SHRUNK = "the MiniCluster is being shrunk"


def resize(
    provisioner: Resizable, client: Client, size: int, grace: float, report_progress: Callable[[str], None]
) -> None:
    """See `executors.lifecycle.Lifecycle.resize`; ``client`` is connected to the instance's agent."""
    now, most = provisioner.size()
    if not 1 <= size <= most:
        raise ConfigError([f"size: {size} is not from 1 to {most}, the minicluster.maxSize of its start"])
    try:
        if size < now:
            _vacate(client, size, now, grace, report_progress)
        provisioner.resize(size)
    except BaseException:
        try:
            _undrain(client, now)
        except ExecutorsError as second:  # the first error is the one to be told
            report_progress(f"drained ranks may still be drained: {second}")
        raise
    _undrain(client, size)


def _vacate(client: Client, size: int, now: int, grace: float, report_progress: Callable[[str], None]) -> None:
    ranks = f"{size}-{now - 1}" if size < now - 1 else str(size)
    report_progress(f"draining rank {ranks}")
    seconds = math.ceil(grace)
    busy = client.request("vacate", timeout=grace + 60.0, ranks=ranks, reason=_SHRUNK, seconds=seconds)["busy"]
    if busy:
        report_progress(f"jobs still run on rank {', '.join(map(str, busy))}, and are lost")


def _undrain(client: Client, size: int) -> None:
    """Let jobs onto those of the first ``size`` ranks that a shrinking has drained, now or earlier."""
    for node in client.request("resources")["nodes"]:
        if node["rank"] < size and node.get("drain_reason") == _SHRUNK:
            client.request("drain", ranks=str(node["rank"]), undo=True)
