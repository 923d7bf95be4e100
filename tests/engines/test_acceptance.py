"""Snakemake's own acceptance suite for executor plugins, on both engines and under both steps."""

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

    def get_executor(self) -> str:
        return "flux-operator"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(job_step=self.step)


class TestEmbedded(_Base):
    __test__ = True
    engine = "embedded"


class TestEmbeddedSnakemakeStep(_Base):
    __test__ = True
    engine = "embedded"
    step = "snakemake"


class TestFlux(_Base):
    __test__ = True
    engine = "flux"


class TestFluxSnakemakeStep(_Base):
    __test__ = True
    engine = "flux"
    step = "snakemake"
