"""Prints the jobspec of a command that is one job, with this environment, directory and limits, as flux-run(1) does."""

import json
import os
import resource
import sys


def main() -> None:
    spec = json.loads(os.environ["FLUXOP_JOB"])
    limits = {}
    for name in ("cpu", "fsize", "data", "stack", "core", "nofile", "as", "rss", "nproc"):
        limits[name] = resource.getrlimit(getattr(resource, "RLIMIT_" + name.upper()))[0]
    system = spec["attributes"]["system"]
    system["environment"] = {name: value for name, value in os.environ.items() if name != "FLUXOP_JOB"}
    system["cwd"] = os.getcwd()
    system["shell"]["options"]["rlimit"] = limits
    json.dump(spec, sys.stdout)


if __name__ == "__main__":
    main()
