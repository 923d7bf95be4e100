"""Which instances of ours there are, on this machine or in a namespace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from executors.config import RunConfig
from executors.provision.base import Instance, choose
from executors.provision.rundir import RunDirectory, base_directory


def instances(config: RunConfig, environ: Mapping[str, str]) -> list[Instance]:
    """All that the configured provisioner has made, by name: in a namespace, or on this machine. Raises ProvisionError.

    Of one on this machine ``size`` and ``running`` are not known, and 1.
    """
    choice = choose(config, environ)
    if choice.name in ("direct", "operator"):
        # Here, since whoever has instances on this machine needs nothing of it.
        from executors.provision.inventory_kubernetes import in_namespace

        return in_namespace(config, choice.name)
    return _here(environ)


def own_config(config: RunConfig, instance: Instance) -> RunConfig:
    """The config by which an instance is found again: by the way it was made, not by that which this caller would take.

    The agent beside an instance that was attached to is found by its directory on this machine, like any other.
    """
    provisioner = instance.provisioner if instance.namespace else "local"
    return replace(config, run=replace(config.run, provisioner=provisioner))


def _here(environ: Mapping[str, str]) -> list[Instance]:
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
