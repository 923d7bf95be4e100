"""What programs under test see of this machine."""

from __future__ import annotations

import os


def environment() -> dict[str, str]:
    """This machine's, without an instance that the tests themselves may run in."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FLUX_")}


def engine_options(engine: str) -> dict[str, object]:
    """What has ``local`` begin an instance of this engine: embedded, flux, or pilot, which is Flux with pilots."""
    if engine == "pilot":
        return {"run.engine": "flux", "run.provisioner": "local", "run.pilot": "on"}
    return {"run.engine": engine, "run.provisioner": "local"}


def engine_variables(engine: str) -> dict[str, str]:
    """The same as environment variables."""
    names = {"run.engine": "ENGINE", "run.provisioner": "PROVISIONER", "run.pilot": "PILOT"}
    return {f"FLUX_OPERATOR_{names[key]}": str(value) for key, value in engine_options(engine).items()}


def engine_environment(engine: str) -> dict[str, str]:
    """This machine's environment, with the same in it."""
    return {**environment(), **engine_variables(engine)}
