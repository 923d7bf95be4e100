"""The choice among the provisioners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from executors.config import PROVISIONERS, RunConfig
from executors.errors import ConfigError
from executors.provision.base import Provisioner


@dataclass(frozen=True)
class ProvisionerChoice:
    """Which provisioner, and why: always printed, so that nothing is guessed silently."""

    name: str
    reason: str


def choose_provisioner(config: RunConfig, environ: Mapping[str, str]) -> ProvisionerChoice:
    """Returns ``run.provisioner`` if set; local for the embedded engine; attach where FLUX_URI is set; else local.

    Raises ConfigError where these contradict each other.
    """
    embedded = config.run.engine == "embedded"
    if config.run.provisioner == "attach" and embedded:
        raise ConfigError(["run.engine: embedded cannot be used with the provisioner attach; give one of the two"])
    if config.run.provisioner is not None:
        return ProvisionerChoice(config.run.provisioner, "asked for")
    if embedded:
        return ProvisionerChoice("local", "run.engine is embedded")
    if environ.get("FLUX_URI"):
        return ProvisionerChoice("attach", "FLUX_URI is set")
    return ProvisionerChoice("local", "FLUX_URI is not set")


def make_provisioner(run_name: str, config: RunConfig, environ: Mapping[str, str]) -> Provisioner:
    """Returns the provisioner for a config. Raises ConfigError for a name that this version does not have."""
    # Imported where they are used: each has needs of its own, and a run uses one.
    choice = choose_provisioner(config, environ)
    match choice.name:
        case "local":
            from executors.provision.local.provisioner import LocalProvisioner

            return LocalProvisioner(run_name, config, environ, choice.reason)
        case "attach":
            from executors.provision.local.attach import AttachProvisioner

            return AttachProvisioner(run_name, config, environ, choice.reason)
        case "direct":
            from executors.provision.kubernetes.direct import DirectMode
            from executors.provision.kubernetes.provisioner import ClusterProvisioner

            return ClusterProvisioner(DirectMode, run_name, config, choice.reason)
        case "operator":
            from executors.provision.kubernetes.operator import OperatorMode
            from executors.provision.kubernetes.provisioner import ClusterProvisioner

            return ClusterProvisioner(OperatorMode, run_name, config, choice.reason)
    raise ConfigError([f"run.provisioner: {choice.name!r} is not known; give one of {', '.join(PROVISIONERS)}"])
