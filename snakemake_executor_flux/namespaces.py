"""The names that a rule's code sees: those of the module that it comes from, which are not the main Snakefile's.

Snakemake's `Job.format_wildcards`, and `Job.shellcmd` with it, use the main Snakefile's for every rule (jobs.py). Its
local executor calls the rule's function, whose globals are the module's own; so this does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snakemake.exceptions import RuleException
from snakemake.utils import format as format_pattern


def rule_globals(rule: Any) -> Mapping[str, Any]:
    """The globals of a rule's code."""
    return rule.run_func.__globals__ if rule.run_func is not None else rule.workflow.globals


def shell_text(job: Any, **more: object) -> str:
    """The command of a shell rule. ``more`` are further names that it may use. Raises RuleException."""
    names = {
        **rule_globals(job.rule),
        "input": job.input,
        "output": job.output,
        "params": job.params,
        "wildcards": job.wildcards,
        "threads": job.threads,
        "resources": job.resources,
        "log": job.log,
        "jobid": job.jobid,
        "rule": job.rule.name,
        "bench_iteration": None,
        **more,
    }
    try:
        return str(format_pattern(job.rule.shellcmd, **names))
    except Exception as err:  # an expression in braces may be anything, and raise anything
        text = f"{type(err).__name__}: {err}, when formatting the following:\n{job.rule.shellcmd}"
        raise RuleException(text, rule=job.rule) from err
