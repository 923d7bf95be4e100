"""What all tests share: needs of the machine, and the list of what was left out."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

import hypothesis
import pytest

# A busy machine is no fault of what is tested. (Hypothesis fails an example that takes 200 ms by default.)
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

_CURE = {
    "flux": "Flux is not installed (no flux on PATH); build flux-core into /usr/local, see docs/install.md",
    "git": "git is not on PATH; install it: Snakemake deploys as sources what git knows (on Debian: apt install git)",
    "openssl": "openssl is not on PATH; install it: it makes certificates (on Debian: apt install openssl)",
    "perl": "perl is not on PATH; install it to get CPU and memory of jobs under Flux",
    "ps": "ps is not on PATH; install it: what other users see is looked at by it (on Debian: apt install procps)",
    "rsync": "rsync is not on PATH; install it: Snakemake's storage plugin fs needs it (on Debian: apt install rsync)",
    "root": "this test mounts a small file system, which needs root",
}


# On a second node, after Airflow's: most of what they do is to wait for a kubelet.
_SECOND_NODE = ("/test_controller.py", "/test_kueue.py", "/test_nextflow.py", "/test_snakemake.py", "/test_waiting.py")


def pytest_configure() -> None:
    """What the tests start and interrupt must not ignore signals because they themselves were started by nohup, or with
    `&` by a script: a signal with a handler is not ignored by what is started."""
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, lambda *_: None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in several processes, those of a file stay together, for its fixtures; and so do those that share
    a Kubernetes node or an Airflow. Two such groups, and others beside them, are as much as two cores bear."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            if path.startswith("tests/cluster/control_plane/"):
                return path
            if path.startswith("tests/cluster/") and not path.endswith(_SECOND_NODE):
                return "node"
            with_airflow = path.startswith(("tests/airflow/", "tests/examples/test_airflow"))
            return "airflow, second node" if with_airflow or path.startswith("tests/cluster/") else path

    return ByFile(config, log)


def _has(what: str) -> bool:
    if what == "root":
        return os.geteuid() == 0
    return shutil.which(what) is not None


@pytest.fixture(scope="session")
def need() -> Callable[[str], None]:
    """``need("flux")`` skips with a reason; it fails instead where REQUIRE names what is missing."""
    return require


def require(what: str) -> None:
    if not _has(what):
        missing(what, _CURE[what])


def missing(what: str, reason: str) -> NoReturn:
    """Skips for the reason; fails where REQUIRE names what is missing."""
    if what in os.environ.get("REQUIRE", "").split(","):
        pytest.fail(f"REQUIRE={what}, but: {reason}")
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    terminalreporter.section("left out on this machine")
    if not reasons:
        terminalreporter.write_line("nothing was left out")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} test(s): {reason}")
