"""Real Flux only: what the embedded engine does not promise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.conftest import opener, out, session

__all__ = ["engine", "opener", "out", "session"]


@pytest.fixture(scope="module")
def engine(need: Callable[[str], None]) -> str:
    need("flux")
    return "flux"
