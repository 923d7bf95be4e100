"""The public surface, and what importing it costs."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

import executors
from airflow_provider_flux.provider_info import get_provider_info
from executors import errors
from executors.controller.manifests import IMAGE


def test_all_that_the_package_imports_is_public_and_sorted() -> None:
    source = ast.parse(Path(executors.__file__).read_text())
    imported = [alias.name for node in ast.walk(source) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert executors.__all__ == sorted(executors.__all__) and set(executors.__all__) == set(imported)


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
    *("executors.provision.local", "executors.provision.kubernetes", "executors.transport.pod_exec"),
    *("executors.memory_file", "executors.agent.protocol.server", "executors.agent.embedded.engine"),
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
    for module in pkgutil.walk_packages(executors.__path__, "executors."):
        # The agent has no error of this hierarchy, and its parts for Flux need Flux' own bindings.
        if not module.name.startswith("executors.agent."):
            importlib.import_module(module.name)
    assert set(_edges(errors.ExecutorsError)) == set(_drawn(errors.__doc__ or ""))


def _edges(parent: type[Exception], name: str = "ExecutorsError") -> Iterator[tuple[str, str]]:
    """(child, parent); a private class between them is left out."""
    for child in parent.__subclasses__():
        if not child.__module__.startswith("executors."):
            continue
        if child.__name__.startswith("_"):
            yield from _edges(child, name)
        else:
            yield child.__name__, name
            yield from _edges(child, child.__name__)


def _drawn(text: str) -> Iterator[tuple[str, str]]:
    """(child, parent) of each line of the tree."""
    parents = {-1: "ExecutorsError"}
    for line in text.splitlines():
        found = re.match(r"    ((?:[|`]-- |\|   |    )*)(\w+)", line)
        if found is None or not found[2].endswith("Error") or "-- " not in found[1]:
            continue
        depth = len(found[1]) // 4 - 1
        parents[depth] = found[2]
        yield found[2], parents[depth - 1]


def test_version_numbers_agree() -> None:
    root = Path(executors.__file__).parents[1]
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((root / "deploy/helm/flux-operator/Chart.yaml").read_text())
    values = yaml.safe_load((root / "deploy/helm/flux-operator/values.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    assert IMAGE.endswith(f":{version}") and values["image"] == IMAGE
    assert f"## {version}" in (root / "CHANGELOG.md").read_text()
    options = get_provider_info()["config"]["flux"]["options"].values()
    assert {option["version_added"] for option in options} <= {version}
