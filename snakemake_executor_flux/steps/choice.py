"""Which step a job takes, and for each faster one why not. `choose_step` is pure; `job_traits` gathers what it sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from snakemake.io import is_flagged
from snakemake_interface_executor_plugins.settings import SharedFSUsage


@dataclass(frozen=True)
class JobTraits:
    """What matters for the choice. ``kind`` is the rule's; every other is a reason for a nested Snakemake."""

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
    no_package: bool = False


#: From the fastest to the one that is right for everything.
STEPS = ("shell", "script", "warm", "snakemake")
#: Kinds of rules that Snakemake's local executor runs by one process that its main process starts.
_BY_SCRIPT = ("script", "wrapper")


@dataclass(frozen=True)
class StepChoice:
    """A step's name, and for each faster one why it is not that."""

    step: str
    against: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def why(self) -> str:
        """``, not shell: ...; not script: ...``, or nothing."""
        texts: list[str] = []
        for step, reasons in self.against.items():
            same = bool(texts) and reasons == next(iter(self.against.values()))
            texts.append(f"not {step}: {'likewise' if same else '; '.join(reasons)}")
        return "".join(f"{';' if index else ','} {text}" for index, text in enumerate(texts))


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


def choose_step(facts: JobTraits, setting: str, no_server: str = "") -> StepChoice:
    """``setting`` is auto or a step; a job never takes a step that it cannot take, nor a faster one than asked for.
    ``no_server``: why there is no warm server for it.
    """
    common = tuple(text for name, text in _REASONS if getattr(facts, name))
    kind = f"its rule is a {facts.kind} rule"
    against = {
        "shell": (() if facts.kind == "shell" else (kind,)) + common,
        "script": (() if facts.kind in ("shell", *_BY_SCRIPT) else (kind,)) + common,
        "warm": (no_server,) if no_server else (),
    }
    if facts.no_package and facts.kind != "shell":
        against["script"] += ("scripts need this Snakemake where they run",)
    for step in STEPS[: STEPS.index(setting)] if setting in STEPS[1:] else ():
        against[step] = against[step] or ("asked for by --flux-operator-job-step",)
    taken = next((step for step, reasons in against.items() if not reasons), "snakemake")
    return StepChoice(
        taken, {step: reasons for step, reasons in against.items() if STEPS.index(step) < STEPS.index(taken)}
    )


def job_traits(job: Any, workflow: Any, *, custom_jobscript: bool, no_package: bool) -> JobTraits:
    """RequestedResources a Snakemake job. ``job`` and ``workflow`` are Snakemake's own classes, which are not typed."""
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
        return JobTraits(group=True, **common)
    files = [*job.input, *job.output, *job.log]
    return JobTraits(
        kind=_kind(job),
        pipe_or_service=job.is_pipe
        or job.is_service
        or any(is_flagged(f, "pipe") or is_flagged(f, "service") for f in job.input)
        or any(job.is_pipe_or_service_input(f) for f in job.input),
        shadow=job.is_shadow,
        cache=workflow.workflow_settings.cache is not None and bool(job.rule.cache),
        unmeasured=no_package and job.benchmark is not None,
        no_package=no_package or SharedFSUsage.SOURCE_CACHE not in shared,
        storage=any(f.is_storage for f in files) or bool(job.benchmark and job.benchmark.is_storage),
        **common,
    )


def _kind(job: Any) -> str:
    for kind in ("script", "notebook", "wrapper", "cwl", "template_engine"):
        if getattr(job, f"is_{kind}"):
            return kind
    return "shell" if job.is_shell else "run"
