"""Kubernetes' own programs and CoreDNS, built from their Go modules into the cache."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.cluster.testbed.cache import go_program, made_once, output_of
from tests.cluster.testbed.missing import need_commands

# The last minor version whose kubelet runs on cgroup v1 too.
KUBERNETES = "1.34.4"
COREDNS = "1.12.4"
#: The last minor version for that Kubernetes.
HELM = "3.19.4"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
# Part of the cache's name: to be raised when a build of the same versions has to differ.
RECIPE = 1

# Only the plugins that the bed uses: a fifth of CoreDNS's dependencies.
_COREDNS_MAIN = """package main

import (
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"

	"github.com/coredns/coredns/coremain"
)

func main() { coremain.Run() }
"""

# The process that holds a pod's namespaces open: it reaps what falls to it, and ends when it is told.
_PAUSE_MAIN = """package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
}
"""


@cache
def binaries() -> Path:
    """The directory that holds PROGRAMS and ``pause``; minutes the first time.

    Raises Missing when Go is absent, its proxy refuses a module, or a build fails.
    """
    # The name is older than CoreDNS' own directory; another one would have everybody build all again.
    return made_once("k8s", f"{KUBERNETES}-coredns-{COREDNS}-{RECIPE}", _build)


@cache
def coredns() -> Path:
    """CoreDNS. Raises Missing as `binaries`."""
    return made_once("coredns", f"{COREDNS}-for-{KUBERNETES}-{RECIPE}", _build_coredns) / "coredns"


def helm() -> Path:
    """Helm's program. Raises Missing as ``go_program``."""
    return go_program("helm", "helm.sh/helm/v3/cmd/helm", HELM)


def _build(directory: Path) -> None:
    need_commands("go")
    source = directory / "source"
    staging = list(_staging_modules(source))
    version = "k8s.io/component-base/version"
    major, minor, _ = KUBERNETES.split(".")
    _go_build(
        source / "kubernetes",
        [f"k8s.io/kubernetes v{KUBERNETES}"],
        staging,
        directory,
        [f"k8s.io/kubernetes/cmd/{name}" for name in PROGRAMS],
        # A server that does not know its version claims to be a much older one.
        f"-X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}",
    )
    _build_main(source / "pause", _PAUSE_MAIN, [], [], directory / "pause")


def _build_coredns(directory: Path) -> None:
    need_commands("go")
    source = directory / "source"
    # With Kubernetes' own versions of the client, which are compiled already.
    staging = list(_staging_modules(source))
    requires = [f"github.com/coredns/coredns v{COREDNS}"]
    _build_main(source / "coredns", _COREDNS_MAIN, requires, staging, directory / "coredns")


def _build_main(source: Path, main: str, requires: list[str], staging: list[str], output: Path) -> None:
    source.mkdir()
    (source / "main.go").write_text(main)
    _go_build(source, requires, staging, output, ["."], "")


def _staging_modules(source: Path) -> Iterator[str]:
    """The modules that live inside Kubernetes' own repository, whose published versions have to be named."""
    source.mkdir()
    (source / "go.mod").write_text("module testbed.invalid/download\n")
    module = output_of(
        ["go", "mod", "download", "-json", f"k8s.io/kubernetes@v{KUBERNETES}"],
        what=f"getting k8s.io/kubernetes v{KUBERNETES} from the Go module proxy",
        cwd=source,
    )
    described = output_of(
        ["go", "mod", "edit", "-json", json.loads(module)["GoMod"]], what="reading Kubernetes' go.mod", cwd=source
    )
    for required in json.loads(described)["Require"]:
        if required["Version"] == "v0.0.0":
            yield required["Path"]


def _go_build(
    source: Path, requires: list[str], staging: list[str], output: Path, packages: list[str], ldflags: str
) -> None:
    source.mkdir(exist_ok=True)
    published = "v0." + KUBERNETES.split(".", 1)[1]
    lines = ["module testbed.invalid/build", "go 1.24.0"]
    lines += [f"require {module}" for module in requires]
    lines += [f"replace {module} => {module} {published}" for module in staging]
    (source / "go.mod").write_text("\n".join(lines) + "\n")
    output_of(
        [
            *("go", "build", "-trimpath", "-ldflags", f"-s -w {ldflags}"),
            *("-o", f"{output}{os.sep}" if len(packages) > 1 else str(output)),
            *packages,
        ],
        what=f"building {' '.join(packages)} with Go",
        cwd=source,
        # -mod=mod: go.mod and go.sum are completed from the proxy, whose sums Go checks against its sum database.
        env={"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false", "GOWORK": "off"},
    )
