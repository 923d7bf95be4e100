"""One list of provisioners: what is written elsewhere, because it must not import the core, says the same."""

from __future__ import annotations

import tempfile
from dataclasses import replace

import pytest

from airflow_provider_flux.provider_info import get_provider_info
from executors.config import PROVISIONERS, RunConfig, RunSection
from executors.names import PLACE_VARIABLE
from executors.provision import make_provisioner


@pytest.mark.parametrize("name", PROVISIONERS)
def test_each_provisioner_of_the_list_can_be_made(name: str) -> None:
    config = RunConfig(replace(RunSection(), provisioner=name))
    # A short path: a socket will be in it.
    with tempfile.TemporaryDirectory(prefix="fx", dir="/tmp") as directory:
        environ = {PLACE_VARIABLE: directory, "FLUX_URI": "local:///nowhere"}
        provisioner = make_provisioner("run-1234", config, environ)
    assert type(provisioner).__module__.startswith("executors.provision.")


def test_the_form_of_airflows_connection_offers_the_same() -> None:
    [connection] = get_provider_info()["connection-types"]
    assert sorted(connection["conn-fields"]["provisioner"]["schema"]["enum"]) == sorted(PROVISIONERS)
