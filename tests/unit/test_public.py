"""The public surface, and what importing it costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


#: What `import executors` does without: engines, clusters, and what only a part of the runs needs. Each of the standard
#: library's costs milliseconds, and engines with a process per task pay them per task.
_HEAVY = {
    *("airflow", "asyncio", "click", "cryptography", "kubernetes", "requests", "snakemake", "tenacity", "urllib3"),
    *("websockets", "yaml", "zmq"),
    *("argparse", "email", "getpass", "hmac", "html", "http", "importlib.metadata", "ipaddress", "multiprocessing"),
    *("pathlib", "pickle", "platform", "pprint", "random", "secrets", "shutil", "socket", "sqlite3", "ssl"),
    *("statistics", "subprocess", "tempfile", "unittest", "urllib.parse", "urllib.request", "uuid", "xml", "zipfile"),
    *("concurrent.futures.process", "concurrent.futures.thread", "logging.config", "logging.handlers"),
    *("executors.spec", "executors.validation", "executors.render", "executors.kube", "executors.cli"),
    *("executors.provision.local", "executors.provision.cluster", "executors.transport.pod_exec"),
    *("executors.memory_file", "executors.agent.server", "executors.agent.embedded_engine"),
}


def test_importing_the_core_brings_nothing_heavy() -> None:
    code = "import sys; before = set(sys.modules); import executors; print(*set(sys.modules) - before)"
    # Without the site's own, which may bring some of them before.
    path = os.pathsep.join([str(Path(executors.__file__).parents[1]), *filter(None, sys.path)])
    argv = [sys.executable, "-S", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path})
    found = done.stdout.split()
    assert "executors.session" in found
    assert not _HEAVY & set(found)


def test_the_hierarchy_of_errors_is_as_drawn() -> None:
    assert issubclass(executors.GuestError, executors.ProvisionError)
    assert issubclass(executors.ProtocolError, executors.TransportError)
    for name in executors.__all__:
        thing = getattr(executors, name)
        if isinstance(thing, type) and issubclass(thing, Exception):
            assert issubclass(thing, executors.ExecutorsError)
