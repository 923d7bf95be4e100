"""Ends what nobody will end: instances whose agent does not answer, or that nobody has used for too long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from executors.config import RunConfig
from executors.errors import AgentSilentError, EndingError, ExecutorsError
from executors.lifecycle.manager import Lifecycle
from executors.provision import Instance
from executors.provision.inventory import instances, own_config

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reaped:
    """What was decided about one instance. ``ended`` False: it was left alone, for this reason."""

    instance: Instance
    ended: bool
    reason: str


def reap(
    config: RunConfig,
    environ: Mapping[str, str],
    *,
    dry_run: bool = False,
    wanted: Callable[[str], bool] = lambda _name: True,
) -> Iterator[Reaped]:
    """Decide about each instance of the configured provisioner whose name is ``wanted``, and end those that are of no
    use.

    That is: ended ones that are kept until their ttl; those that did not start within ``run.startTimeout``; those whose
    agent does not answer; those that had neither client nor job for longer than ``run.orphanTimeout``.
    Raises ProvisionError when they cannot be listed.
    """
    for instance in instances(config, environ):
        if not wanted(instance.name):
            continue
        lifecycle = Lifecycle(instance.name, own_config(config, instance), environ)
        try:
            useless = _useless(instance, lifecycle, config)
        except ExecutorsError as err:
            # That we cannot reach the agent says nothing of whether others do.
            yield Reaped(instance, False, f"cannot be told: {err}")
            continue
        if useless is not None and not dry_run:
            lifecycle.end()
        yield Reaped(instance, useless is not None, useless or "in use")


def _useless(instance: Instance, lifecycle: Lifecycle, config: RunConfig) -> str | None:
    """Why an instance can go; None: it is in use. Raises ExecutorsError where that cannot be told."""
    age = max(0.0, time.time() - instance.created)
    if instance.state == "ended":
        return instance.reason
    if instance.state == "ending":
        return None
    if instance.state == "starting":
        limit = config.run.start_timeout
        return f"not up after {age:.0f} s: {instance.reason}" if limit and age > limit else None
    try:
        [info] = lifecycle.observe("info")
    except (AgentSilentError, EndingError) as err:
        return f"its agent does not answer: {err}"
    limit = config.run.orphan_timeout
    quiet = float(info["quiet"])
    return f"neither client nor job for {quiet:.0f} s" if limit and quiet > limit else None
