"""Values that Snakemake leaves to the place of execution: ``<TBD>`` in its main process.

``resources.tmpdir`` is one (jobs.py, `Job.resources`), and with it whatever is computed from it and cached: ``params:``
above all. Where the main process itself makes a job's command, it resolves them as a nested process would.
"""

from __future__ import annotations

from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

#: How Snakemake writes such a value (common/tbdstring.py). Text made from one holds it too, and is plain text.
MARK = "<TBD>"


class Unresolved(Exception):
    """A command would hold a value that only a nested Snakemake can tell; the text says which."""


def resolve(job: Any) -> None:
    """Evaluate all resources of a single job here. Must come before `prepare`, which makes ``tmpdir``, and before
    anything that shows or uses params. Raises WorkflowError."""
    if "tmpdir" in job.rule.resources and not isinstance(job.resources.get("tmpdir"), str | None):
        raise WorkflowError(f"tmpdir={job.resources.get('tmpdir')!r} is not a path", rule=job.rule)
    job._resources = job.rule.expand_resources(job.wildcards_dict, job.input, job.attempt, skip_evaluation=set())
    forget_params(job)


def forget_params(job: Any) -> None:
    """Let params be computed again: from resources that have changed, in a further attempt too."""
    job._params = None
    job._non_derived_params = None


def check_text(job: Any, text: str, template: str) -> None:
    """Raises Unresolved where a formatted text holds what its template does not."""
    if MARK in text and text.count(MARK) > template.count(MARK):
        raise Unresolved("its command contains a value that is known only where the job runs")


def check_values(job: Any) -> None:
    """For what gets params and resources as a whole. Raises Unresolved."""
    for kind, values in (("params", job.params), ("resources", job.resources)):
        if MARK in repr(list(values.items())) or MARK in repr(list(values)):
            raise Unresolved(f"its {kind} contain a value that is known only where the job runs")
