"""Discovery only: Snakemake finds executor plugins by the prefix of this package's name."""

from snakemake_executor_flux.executor import Executor
from snakemake_executor_flux.settings import ExecutorSettings, common_settings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]
