"""The limit of Snakemake itself: an executor that makes the outputs and reports success, and starts nothing."""

from __future__ import annotations

from pathlib import Path

_NAME = "bench-instant"
_MODULE = "snakemake_executor_plugin_bench_instant"
_CODE = """
from pathlib import Path
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings

common_settings = CommonSettings(job_deploy_sources=False, non_local_exec=True, implies_no_shared_fs=False)


class Executor(RemoteExecutor):
    def __post_init__(self):
        pass

    async def _wait_for_jobs(self):
        pass

    async def check_active_jobs(self, active_jobs):
        for info in active_jobs:
            yield info

    def run_job(self, job):
        info = SubmittedJobInfo(job)
        self.report_job_submission(info)
        for path in map(Path, job.output):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        self.report_job_success(info)

    def cancel_jobs(self, active_jobs):
        pass
"""


def write_instant(directory: Path) -> tuple[list[str], dict[str, str]]:
    """Write it; the words by which Snakemake uses it, and the variables by which it is found."""
    (directory / _MODULE).mkdir()
    (directory / _MODULE / "__init__.py").write_text(_CODE)
    return ["--executor", _NAME, "--jobs", "1000"], {"PYTHONPATH": str(directory)}
