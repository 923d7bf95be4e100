"""Which Flux an image must bring, and what to say of one that is too old. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from executors.spec import MiniClusterSpec  # a quarter of our own part of `import executors`

#: The agent follows the job manager's journal by ``flux.job.JournalConsumer``, which came with it.
AGENT_NEEDS = (0, 68)
#: ``sched-backfill`` came with it. Older brokers either take no notice of a broker.toml that names it (before 0.79:
#: jobs then run first in, first out), or do not start.
BACKFILL_NEEDS = (0, 84)

_VERSION = re.compile(r"(\d+)\.(\d+)")


def parse_version(text: str) -> tuple[int, int] | None:
    """Major and minor version in a text like ``0.88.0-12-gabc``; None where there is none."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2])) if found else None


def problem(version: str, spec: MiniClusterSpec, provisioner: str) -> str | None:
    """What is wrong with the Flux of a MiniCluster's image, and the cure; None: nothing, or it cannot be told."""
    found = parse_version(version)
    backfill = provisioner == "direct" and not spec.flux.simple_scheduler and not spec.flux.queue_policy
    least = BACKFILL_NEEDS if backfill else AGENT_NEEDS
    if found is None or found >= least:
        return None
    needed = ".".join(map(str, least))
    what = "has no backfill scheduler" if found >= AGENT_NEEDS else "cannot report its jobs to the agent"
    return (
        f"the image {spec.flux_container.image or '(default)'} contains Flux {version.strip()}, which {what}; "
        f"{needed} or newer is needed: name an image with such a Flux in minicluster.containers[].image"
        + (", or set flux.scheduler.simple" if found >= AGENT_NEEDS else "")
    )
