"""Sessions, looked at more closely than their users do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from executors import RunId, Session
from executors.names import run_name
from executors.provision.local.rundir import RunDirectory, base_directory
from tests.support.environment import environment

#: Opens a session; see the fixture ``opener``.
Opener = Callable[..., Session]


def ask(session: Session, op: str, **fields: Any) -> dict[str, Any]:
    """The agent's answer to a request that the session's public methods do not make. Raises AgentError."""
    return session._control.client.request(op, **fields)


def lose(session: Session, reason: str) -> None:
    """Have the session believe that its agent is gone for good."""
    session._control.on_lost(reason)
    while session.lost is None:
        time.sleep(0.005)


def acknowledge_now(session: Session) -> None:
    """Send what was acknowledged, rather than when the dispatcher comes to it."""
    session._control._acks.flush()


def agent_pid(session: Session) -> int:
    return int(ask(session, "info")["pid"])


def directory_of(run: str) -> RunDirectory:
    """The directory of an instance on this machine that the fixture ``opener`` has opened under this name."""
    return RunDirectory(base_directory(environment()), run_name(RunId("test", run)))
