"""A Kubernetes to try things on: ``python -m tests.cluster.testbed build | up | down | shell``.

    build   makes what is made once and kept, which takes minutes
    up      brings up a cluster that stays, and prints how to use it
    down    ends every cluster that stays, or the one whose number is given
    shell   a shell with a cluster that ends with it

With ``--control-plane`` there is no node, which needs neither root nor Flux.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from tests.cluster.testbed import kueue
from tests.cluster.testbed.binaries import helm
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.control_plane import ControlPlane
from tests.cluster.testbed.missing import Missing
from tests.cluster.testbed.numbers import Number, end, staying
from tests.cluster.testbed.object_store import versitygw


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m tests.cluster.testbed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("do", choices=["build", "up", "down", "shell"])
    parser.add_argument("number", type=int, nargs="?", help="of the cluster to end")
    parser.add_argument("--control-plane", action="store_true", help="without a node")
    arguments = parser.parse_args()
    kind = ControlPlane if arguments.control_plane else Cluster
    try:
        if arguments.do == "down":
            for number in staying() if arguments.number is None else [Number(arguments.number)]:
                end(number)
        elif arguments.do == "build":
            kind.prepare()
            if kind is Cluster:
                versitygw()
                kueue.program()
                helm()
        elif arguments.do == "up":
            for name, value in exports(kind(stays=True)).items():
                print(f"export {name}={value}")
        else:
            with kind() as bed:
                shell = [os.environ.get("SHELL", "/bin/sh")]
                sys.exit(subprocess.run(shell, env={**os.environ, **exports(bed)}, check=False).returncode)
    except Missing as missing:
        sys.exit(f"no test bed on this machine: {missing}")


def exports(bed: ControlPlane) -> dict[str, str]:
    """What a shell needs to use the bed: kubectl on PATH, its config, and the image's name."""
    found = {
        "KUBECONFIG": str(bed.kubeconfig),
        "PATH": f"{bed.binaries}{os.pathsep}{os.environ['PATH']}",
        "FLUXOP_TEST_BED": str(bed.directory),
    }
    if isinstance(bed, Cluster):
        found["FLUXOP_TEST_IMAGE"] = bed.image.name
    return found


if __name__ == "__main__":
    main()
