"""The public surface, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import executors


def test_public_names_are_what_they_are() -> None:
    assert sorted(executors.__all__) == [
        "AgentError",
        "ConfigError",
        "Cursor",
        "ExecutorsError",
        "GuestError",
        "JobEvent",
        "JobException",
        "JobHandle",
        "JobRequest",
        "JobResult",
        "Outcome",
        "ProtocolError",
        "ProvisionError",
        "RequestError",
        "RunConfig",
        "RunId",
        "RunNameError",
        "Session",
        "SessionClosedError",
        "Times",
        "TransportError",
        "Usage",
        "end_run",
        "join_session",
        "load_config",
        "open_session",
        "run_name",
    ]
    assert all(hasattr(executors, name) for name in executors.__all__)


def test_importing_the_core_brings_no_engine_and_no_cluster() -> None:
    code = "import sys, executors; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"kubernetes", "snakemake", "airflow", "yaml", "asyncio", "urllib3"} & set(done.stdout.split())


def test_the_hierarchy_of_errors_is_as_drawn() -> None:
    assert issubclass(executors.GuestError, executors.ProvisionError)
    assert issubclass(executors.ProtocolError, executors.TransportError)
    for name in executors.__all__:
        thing = getattr(executors, name)
        if isinstance(thing, type) and issubclass(thing, Exception):
            assert issubclass(thing, executors.ExecutorsError)
