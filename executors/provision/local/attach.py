"""The provisioner attach: an agent beside an instance that is there."""

from __future__ import annotations

import os
import zlib

from executors.errors import ProvisionError
from executors.provision.local.agent import LocalAgent


class AttachProvisioner(LocalAgent):
    """An agent beside the instance that FLUX_URI names: it never ends, drains or times out that instance."""

    def describe(self) -> str:
        uri = self._environ.get("FLUX_URI", "(FLUX_URI is not set)")
        return f"provisioner: attach ({self._reason}): {uri}{self._where()}"

    def ensure(self) -> None:
        if not self._environ.get("FLUX_URI"):
            raise ProvisionError(
                "attach: FLUX_URI is not set, so there is no instance to attach to; run inside `flux start`, "
                "`flux alloc` or `flux batch`, or use the provisioner local"
            )
        if self._flux() is None:
            raise ProvisionError("attach: no flux is on PATH; its own Python is needed to talk to the instance")
        super().ensure()

    def _directory_name(self) -> str:
        # An agent that was left in another instance must not be taken for one in this.
        return f"{self._name}-{zlib.crc32(os.fsencode(self._environ.get('FLUX_URI', ''))):08x}"

    def _command(self) -> list[str]:
        flux = self._flux()
        assert flux is not None  # ensure has looked
        return [flux, "python", *self._agent_arguments("flux", "supervise"), "--guest"]

    def _process_environment(self) -> dict[str, str]:
        return {**super()._process_environment(), "FLUX_URI": self._environ["FLUX_URI"]}
