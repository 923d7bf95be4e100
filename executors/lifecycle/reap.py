"""Ends what nobody will end: instances whose agent does not answer, or that nobody has used for too long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from executors.config import RunConfig
from executors.errors import AgentSilentError, AgentStartingError, EndingError, ExecutorsError, ProvisionError
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
    agent does not answer, unless a client or a job is seen from outside; those that had neither client nor job for
    longer than ``run.orphanTimeout``.
    Raises ProvisionError when they cannot be listed.
    """
    for instance in instances(config, environ):
        if not wanted(instance.name):
            continue
        lifecycle = Lifecycle(instance.name, own_config(config, instance), environ)
        try:
            useless, silent = _useless(instance, lifecycle, config)
            if useless is None:
                yield Reaped(instance, False, instance.reason or "in use, or not unused for run.orphanTimeout")
            elif dry_run:
                yield Reaped(instance, True, useless)
            elif not _is_the_same(instance, config, environ) or not lifecycle.end_unused(by_force=silent):
                yield Reaped(instance, False, "is in use by now")
            else:
                yield Reaped(instance, True, useless)
        except ExecutorsError as err:
            # That we cannot reach the agent says nothing of whether others do.
            yield Reaped(instance, False, f"its use is unknown: {err}")


def _is_the_same(instance: Instance, config: RunConfig, environ: Mapping[str, str]) -> bool:
    """Whether it is as it was: it took a while to decide, and its name may be that of another by now."""
    return any(
        (one.name, one.created, one.state) == (instance.name, instance.created, instance.state)
        for one in instances(config, environ)
    )


def _useless(instance: Instance, lifecycle: Lifecycle, config: RunConfig) -> tuple[str | None, bool]:
    """Why an instance can go (None: it is in use), and whether there is no agent that could be asked again.

    Raises ExecutorsError where that cannot be told.
    """
    age = max(0.0, time.time() - (instance.begun or instance.created))
    limit = config.run.start_timeout
    late = bool(limit and age > limit)
    if instance.state == "ended":
        return instance.reason, True
    if instance.state in ("ending", "suspended"):
        # The user that has queued it waits for it; if nobody does, it ends by its time-outs when it has begun.
        return None, True
    if instance.state == "starting":
        return f"not up after {age:.0f} s: {instance.reason}" if late else None, True
    try:
        info = lifecycle.observe()
    except AgentStartingError as err:
        return f"not up after {age:.0f} s: {err}" if late else None, True
    except EndingError:
        return None, True  # by itself: it may be ending jobs in good order
    except AgentSilentError as err:
        if (used := lifecycle.in_use()) is not None:
            raise ProvisionError(f"its agent does not answer, but {used}") from err
        return f"its agent does not answer: {err}", True
    limit = config.run.orphan_timeout
    quiet = float(info["quiet"])
    return f"neither client nor job for {quiet:.0f} s" if limit and quiet > limit else None, False
