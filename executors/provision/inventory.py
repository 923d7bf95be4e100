"""The instances that this program has made, on this machine or in a namespace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from executors.config import RunConfig
from executors.provision.base import Instance
from executors.provision.choice import choose_provisioner


def instances(config: RunConfig, environ: Mapping[str, str]) -> list[Instance]:
    """All that the configured provisioner has made, by name: in a namespace, or on this machine. Raises ProvisionError.

    Of one on this machine ``size`` and ``running`` are not known, and 1.
    """
    choice = choose_provisioner(config, environ)
    if choice.name in ("direct", "operator"):
        # Imported where it is used: a user with instances on this machine needs nothing of it.
        from executors.provision.kubernetes.inventory import in_namespace

        return in_namespace(config, choice.name)
    from executors.provision.local.inventory import on_this_machine

    return on_this_machine(environ)


def own_config(config: RunConfig, instance: Instance) -> RunConfig:
    """Returns a config that finds this instance again: with the provisioner that created it, not the caller's.

    The agent beside an instance that was attached to is found by its directory on this machine, like any other.
    """
    provisioner = instance.provisioner if instance.namespace else "local"
    return replace(config, run=replace(config.run, provisioner=provisioner))
