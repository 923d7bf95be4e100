"""Which step a job takes, and why not a faster one. Pure: `choose` sees facts, `facts_of` gathers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snakemake.io import is_flagged
from snakemake_interface_executor_plugins.settings import SharedFSUsage


@dataclass(frozen=True)
class Facts:
    """What matters for the choice. Each is a reason against the shell step, but `plain`, which is the one for it."""

    plain: bool = True
    kind: str = "shell"
    group: bool = False
    pipe_or_service: bool = False
    shadow: bool = False
    cache: bool = False
    storage: bool = False
    default_storage: bool = False
    precommand: bool = False
    jobscript: bool = False
    files_not_shared: bool = False
    sources_not_shared: bool = False
    software_not_shared: bool = False
    unmeasured: bool = False


@dataclass(frozen=True)
class Choice:
    """A step's name, and every reason why it is not a faster one."""

    step: str
    reasons: tuple[str, ...] = ()


_REASONS = (
    ("group", "it is a group of jobs"),
    ("pipe_or_service", "it is connected to another job by a pipe or a service"),
    ("shadow", "it uses a shadow directory"),
    ("cache", "its output may come from the between-workflow cache"),
    ("storage", "it reads or writes a storage provider"),
    ("default_storage", "there is a default storage provider"),
    ("precommand", "there is a precommand"),
    ("jobscript", "there is a custom jobscript"),
    ("files_not_shared", "input and output are not on a shared file system"),
    ("sources_not_shared", "sources are not on a shared file system"),
    ("software_not_shared", "software environments are not on a shared file system"),
    ("unmeasured", "its benchmark needs this package where it runs"),
)


def choose(facts: Facts, setting: str) -> Choice:
    """``setting`` is auto, shell or snakemake; a job that cannot take the shell step never takes it."""
    reasons = [] if facts.plain else [f"its rule is a {facts.kind} rule"]
    reasons += [text for name, text in _REASONS if getattr(facts, name)]
    if reasons:
        return Choice("snakemake", tuple(reasons))
    if setting == "snakemake":
        return Choice("snakemake", ("asked for by --flux-operator-job-step",))
    return Choice("shell")


def facts_of(job: Any, workflow: Any, *, custom_jobscript: bool, meter_missing: bool) -> Facts:
    """Ask a Snakemake job. ``job`` and ``workflow`` are Snakemake's own classes, which are not typed."""
    shared = workflow.storage_settings.shared_fs_usage
    common: dict[str, Any] = {
        "default_storage": workflow.storage_registry.default_storage_provider is not None,
        "precommand": bool(workflow.remote_execution_settings.precommand),
        "jobscript": custom_jobscript,
        "files_not_shared": SharedFSUsage.INPUT_OUTPUT not in shared,
        "sources_not_shared": SharedFSUsage.SOURCES not in shared,
        "software_not_shared": SharedFSUsage.SOFTWARE_DEPLOYMENT not in shared
        and bool(workflow.deployment_settings.deployment_method),
    }
    if job.is_group():
        return Facts(group=True, **common)
    files = [*job.input, *job.output, *job.log]
    return Facts(
        plain=bool(job.is_shell),
        kind=_kind(job),
        pipe_or_service=job.is_pipe
        or job.is_service
        or any(is_flagged(f, "pipe") or is_flagged(f, "service") for f in job.input)
        or any(job.is_pipe_or_service_input(f) for f in job.input),
        shadow=job.is_shadow,
        cache=workflow.workflow_settings.cache is not None and bool(job.rule.cache),
        unmeasured=meter_missing and job.benchmark is not None,
        storage=any(f.is_storage for f in files) or bool(job.benchmark and job.benchmark.is_storage),
        **common,
    )


def _kind(job: Any) -> str:
    for kind in ("script", "notebook", "wrapper", "cwl", "template_engine"):
        if getattr(job, f"is_{kind}"):
            return kind
    return "shell" if job.is_shell else "run"
