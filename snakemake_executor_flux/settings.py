"""Options of ``snakemake --executor flux-operator`` and where they go in a `RunConfig`."""

# Without `from __future__ import annotations`: Snakemake makes argparse types of these annotations, and knows
# typing.Optional only.
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

from executors.config import PILOTS, PROVISIONERS

common_settings = CommonSettings(
    non_local_exec=True,
    # True would empty --shared-fs-usage for every user of the executor, also on one machine.
    implies_no_shared_fs=False,
    # Only has an effect where sources are not shared.
    job_deploy_sources=True,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    # Values on a command line can be read by others, and Flux stores it; they travel as secret environment instead.
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=0,
)


def _option(help_text: str, default: object = None, **metadata: object) -> Any:
    return field(default=default, metadata={"help": help_text, "env_var": False, "required": False, **metadata})


class UserError(WorkflowError):
    """What the user can fix: an option, a config, an instance that does not start.

    Snakemake shows each error with its way through all sources that are not Snakemake's (exceptions.py,
    cut_traceback); our lines help nobody there, so this one has none to show.
    """

    @property
    def __traceback__(self) -> None:
        return None

    @__traceback__.setter
    def __traceback__(self, _value: object) -> None:
        """Context managers set it."""


def _as_typed(text: str) -> Path:
    """A path is relative to where the command was typed, whatever ``--directory`` and ``workdir:`` say later."""
    return Path(os.path.expandvars(text)).expanduser().absolute()


def _choices(*values: str) -> dict[str, Any]:
    """They are in the help, too: Snakemake writes VALUE otherwise."""
    return {"choices": list(values), "metavar": "{" + ",".join(values) + "}"}


def _path(help_text: str) -> Any:
    return _option(help_text, metavar="PATH", parse_func=_as_typed, unparse_func=str)


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """Defaults are None where a config file or the environment may say otherwise."""

    provisioner: Optional[str] = _option(
        "Where the Flux instance comes from: 'local' starts one on this machine (the embedded engine if Flux is not "
        "installed), 'attach' uses the one that FLUX_URI names, 'direct' creates a MiniCluster on Kubernetes without "
        "an operator, 'operator' lets the cluster's Flux Operator do it. Default: attach if FLUX_URI is set, else "
        "local.",
        **_choices(*PROVISIONERS),
    )
    namespace: Optional[str] = _option("Kubernetes namespace of the MiniCluster. Default: the one of the context.")
    config: Optional[Path] = _path("Pipeline config, a YAML file of kind FluxRun. Default: none.")
    job_step: Optional[str] = _option(
        "How a job's command is run: 'shell' (the rule's own command is the Flux job), 'script' (what Snakemake's "
        "local executor would start is: scripts and wrappers too), 'warm' (a nested Snakemake that is forked from a "
        "server), 'snakemake' (a nested Snakemake) or 'auto' (for each job the first of these that it can take, see "
        "--verbose). Default: auto.",
        "auto",
        **_choices("auto", "shell", "script", "warm", "snakemake"),
    )
    queue: Optional[str] = _option("Flux queue for jobs without the resource flux_queue. Default: Flux's own.")
    bank: Optional[str] = _option("Flux bank (account) for all jobs. Default: Flux's own.")
    orphan_timeout: Optional[float] = _option(
        "The instance and its running jobs end after so many seconds without any client. Default: 3600.",
        metavar="SECONDS",
    )
    idle_timeout: Optional[float] = _option(
        "The instance ends after so many seconds without clients and jobs. Default: 300.", metavar="SECONDS"
    )
    memory: Optional[str] = _option(
        "What mem_mb does, since Flux does not schedule memory. 'cores': it reserves cores by the job's share of "
        "memory, so that jobs wait instead of being killed; 'ignore': it has no effect. Default: cores.",
        "cores",
        **_choices("cores", "ignore"),
    )
    pilot: Optional[str] = _option(
        "Run short jobs at the machine's own rate under Flux, by a process beside it: 'on', 'off', or 'auto' (once "
        "many jobs of the run were short). Default: off.",
        **_choices(*PILOTS),
    )
    logdir: Optional[Path] = _path(
        "Directory for job logs and the efficiency table. Default: .snakemake/flux_operator_logs/<run>, where logs of "
        "runs older than 10 days are removed."
    )
    keep_on_failure: bool = _option(
        "After a failed run, keep the instance until its idle time-out, so that you can look inside.", False
    )

    def __post_init__(self) -> None:
        # Made from Python, it has not gone through the parser of options.
        self.config = None if self.config is None else _as_typed(str(self.config))
        self.logdir = None if self.logdir is None else _as_typed(str(self.logdir))

    def check(self) -> None:
        """Raises UserError naming option, value and cure (Snakemake itself does not check choices from the API)."""
        for name, allowed in (
            ("provisioner", (None, *PROVISIONERS)),
            ("job_step", ("auto", "shell", "script", "warm", "snakemake")),
            ("memory", ("cores", "ignore")),
            ("pilot", (None, *PILOTS)),
        ):
            value = getattr(self, name)
            if value not in allowed:
                choices = ", ".join(choice for choice in allowed if choice)
                raise UserError(f"--flux-operator-{name.replace('_', '-')}: {value!r} is not one of {choices}")

    def config_options(self) -> dict[str, object]:
        """What the command line says, by config key; None where it says nothing."""
        return {
            "run.provisioner": self.provisioner,
            "run.namespace": self.namespace,
            "run.orphanTimeout": self.orphan_timeout,
            "run.idleTimeout": self.idle_timeout,
            "run.pilot": self.pilot,
            "jobDefaults.queue": self.queue,
            "jobDefaults.bank": self.bank,
        }
