"""Which instances there are on this machine: one look at each run's directory."""

from __future__ import annotations

from collections.abc import Mapping

from executors.provision.base import Instance
from executors.provision.local.rundir import RunDirectory, base_directory


def on_this_machine(environ: Mapping[str, str]) -> list[Instance]:
    """All whose lock is held, by name. Raises ProvisionError."""
    base = base_directory(environ)
    found = []
    for path in sorted(base.iterdir()):
        try:
            there = RunDirectory(base, path.name)
            if path.is_dir() and there.alive():
                # The directory's own time changes with what is in it; an instance that we started has an epoch.
                kind = "local" if (path / "epoch").exists() else "attach"
                found.append(Instance(path.name, kind, "", "running", "", 1, 1, there.agent.stat().st_mtime))
        except FileNotFoundError:
            pass  # it has just ended
    return found
