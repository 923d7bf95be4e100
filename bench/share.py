"""Share of a workflow's jobs by the step they take, with the reasons: ``python -m bench.share SNAKEMAKE-ARGUMENTS``.

It plans the workflow (with whatever options a run would have, ``--sdm conda`` for instance) and asks the executor's
own choice for every job that would run. Nothing is executed. Jobs behind a checkpoint are not planned yet, so they
are not counted.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from snakemake import cli
from snakemake.settings.types import RemoteExecutionSettings
from snakemake.workflow import Workflow

from snakemake_executor_flux.steps.choice import StepChoice, choose_step, job_traits


def counts(workflow: Any) -> Counter[str]:
    """Jobs by step and reason; rules that have nothing to run, and local rules, never reach an executor."""
    jobs = [job for job in workflow.dag.jobs if workflow.dag.needrun(job)]
    remote = [job for job in jobs if not job.is_norun and not job.is_local]
    facts = (job_traits(job, workflow, custom_jobscript=False, no_package=False) for job in remote)
    return Counter(_line(choose_step(one, "auto")) for one in facts)


def _line(choice: StepChoice) -> str:
    return f"{choice.step}{choice.why}"


def report(found: Counter[str]) -> str:
    total = sum(found.values())
    lines = [f"{total} jobs for the executor"]
    lines += [f"{count:6d}  {count / total:4.0%}  {line}" for line, count in found.most_common()]
    return "\n".join(lines)


def main() -> None:
    def instead_of_printing(workflow: Any) -> None:
        workflow._prepare_dag(forceall=workflow.dag_settings.forceall, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        workflow.remote_execution_settings = RemoteExecutionSettings()
        print(report(counts(workflow)))

    Workflow.printdag = instead_of_printing
    # No executor is made for a plan, so everything in it would count as local.
    Workflow.local_exec = property(lambda _workflow: False)
    cli.main([*sys.argv[1:], "--dag", "--executor", "flux-operator", "--jobs", "1"])


if __name__ == "__main__":
    main()
