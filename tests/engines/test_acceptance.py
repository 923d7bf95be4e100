"""Snakemake's own acceptance suite for executor plugins, on both engines: by the fastest steps, the warm one and the
snakemake one.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import snakemake.common.tests

from snakemake_executor_plugin_flux_operator import ExecutorSettings


class _Base(snakemake.common.tests.TestWorkflowsLocalStorageBase):
    engine = ""
    step = "auto"

    @pytest.fixture(autouse=True)
    def _engine(self, monkeypatch: pytest.MonkeyPatch, need: Callable[[str], None]) -> None:
        if self.engine == "flux":
            need("flux")
        monkeypatch.setenv("FLUX_OPERATOR_ENGINE", self.engine)
        monkeypatch.delenv("FLUX_URI", raising=False)
        # However the tests were started: this repository has a plugin in it, which would mean no warm step.
        monkeypatch.setattr("snakemake_executor_flux.steps.warm.given_by_start", lambda: None)

    def get_executor(self) -> str:
        return "flux-operator"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(job_step=self.step)


class TestEmbedded(_Base):
    __test__ = True
    engine = "embedded"


class TestEmbeddedWarmStep(_Base):
    __test__ = True
    engine = "embedded"
    step = "warm"


class TestEmbeddedSnakemakeStep(_Base):
    __test__ = True
    engine = "embedded"
    step = "snakemake"


class TestFlux(_Base):
    __test__ = True
    engine = "flux"


class TestFluxWarmStep(_Base):
    __test__ = True
    engine = "flux"
    step = "warm"


class TestFluxSnakemakeStep(_Base):
    __test__ = True
    engine = "flux"
    step = "snakemake"
