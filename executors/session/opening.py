"""Ways into a run's instance."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from executors.config import RunConfig
from executors.lifecycle import Lifecycle
from executors.names import RunId, run_name
from executors.session.session import MAX_IN_FLIGHT, Session

log = logging.getLogger(__name__)


def open_session(
    run: RunId,
    config: RunConfig,
    *,
    environ: Mapping[str, str] | None = None,
    report_progress: Callable[[str], None] = log.info,
    max_in_flight: int = MAX_IN_FLIGHT,
    auto_acknowledge: bool = True,
) -> Session:
    """Get or create the instance of a run and connect to it. The end of a ``with`` block releases it.

    ``report_progress`` is told in one line each which instance is used. With ``auto_acknowledge`` a result counts as
    acknowledged once callbacks have run or `JobHandle.result` has returned it; without, call `JobHandle.acknowledge`.
    A session belongs to the process that has opened it: in a forked child its methods raise SessionClosedError.
    Raises ProvisionError, TransportError, ConfigError or RunNameError; nothing is left behind then.
    """
    if not isinstance(run, RunId):
        raise TypeError(f"run: {run!r} is no RunId; give RunId(kind, name)")
    lifecycle, environment = _lifecycle(run_name(run), config, environ)
    return Session(
        lifecycle,
        lifecycle.acquire,
        config,
        environment,
        report_progress,
        max_in_flight=max_in_flight,
        auto_acknowledge=auto_acknowledge,
        releases=True,
    )


def join_session(
    name: str,
    config: RunConfig,
    *,
    environ: Mapping[str, str] | None = None,
    report_progress: Callable[[str], None] = log.info,
) -> Session:
    """Connect to an instance that is there, by its name (`Session.run_name`), and never make one.

    The end of a ``with`` block leaves the instance as it is; `Session.release` ends it. Raises ProvisionError when it
    is not there or has just ended, and what `open_session` does.
    """
    lifecycle, environment = _lifecycle(name, config, environ)
    return Session(
        lifecycle,
        lifecycle.join,
        config,
        environment,
        report_progress,
        max_in_flight=MAX_IN_FLIGHT,
        auto_acknowledge=False,
        releases=False,
    )


def end_run(name: str, config: RunConfig, *, environ: Mapping[str, str] | None = None) -> None:
    """End the instance of this name (`Session.run_name`), no matter who uses it, and wait until it is gone.

    An instance that is not there is no error; what could not be ended is logged, and ends by its own time-outs.
    """
    _lifecycle(name, config, environ)[0].end()


def _lifecycle(name: str, config: RunConfig, environ: Mapping[str, str] | None) -> tuple[Lifecycle, dict[str, str]]:
    """Raises TypeError for what is no config: the path of one, as a rule."""
    if not isinstance(config, RunConfig):
        raise TypeError(
            f"config: {config!r} is no RunConfig; give load_config(path), or load_config() for the defaults"
        )
    environment = dict(os.environ if environ is None else environ)
    return Lifecycle(name, config, environment), environment
