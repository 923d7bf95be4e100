"""Starts the test bed for fixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.cluster.testbed.control_plane import ControlPlane
from tests.cluster.testbed.missing import Missing
from tests.conftest import missing

Bed = TypeVar("Bed", bound=ControlPlane)


def started(make: Callable[[], Bed]) -> Bed:
    """Skips the test, or fails it where Kubernetes is required, if the machine lacks something."""
    try:
        return make()
    except Missing as reason:
        missing("kubernetes", f"no Kubernetes for the tests: {reason}")
