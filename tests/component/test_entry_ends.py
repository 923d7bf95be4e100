"""How the container of a resource's broker ends, by what the entry script does around a stand-in for the broker."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from executors.render.entry import ENTRY_SCRIPT
from executors.render.names import FOLLOWER_ENDED, UNSERVED
from tests.support.waiting import wait_for

LIMIT = 20.0
#: Ends as it is told to; there is no instance that could be asked.
FLUX = """#!/bin/sh
[ "$1" = broker ] || exit 1
echo begun >>"$0.log"
exit "$BROKER"
"""


class Container:
    """The process of one, whose files are below ``root``."""

    def __init__(self, root: Path, index: int, *, broker: int, post: str = "") -> None:
        flux = root / "flux"
        flux.write_text(FLUX)
        flux.chmod(0o755)
        entry = root / "entry.sh"
        entry.write_text(ENTRY_SCRIPT)
        files, secret = root / "texts" / "flux_operator", root / "texts" / "flux_operator_curve"
        for one in (files, secret, root / "run" / "flux_operator"):
            one.mkdir(parents=True)
        (files / "broker.toml").write_text("")
        (files / "0-post").write_text(post)
        (secret / "curve.cert").write_text("")
        environ = {
            "PATH": f"{root}:/usr/bin:/bin", "FLUXOP_ROOT": str(root), "FLUXOP_TEXTS": str(root / "texts"),
            "FLUXOP_RESOURCE": "1", "JOB_COMPLETION_INDEX": str(index), "BROKER": str(broker), "HOME": str(root),
        }  # fmt: skip
        argv = ["/bin/sh", str(entry), "broker", "flux", "broker"]
        self._process = subprocess.Popen(argv, env=environ, stderr=subprocess.DEVNULL, start_new_session=True)
        self._log = root / "flux.log"

    def wait_for_broker(self) -> None:
        wait_for(self._log.exists, "the broker was begun")

    def tell_to_end(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def code(self) -> int:
        try:
            return self._process.wait(LIMIT)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)


@pytest.mark.parametrize("told", [True, False])
def test_the_index_of_a_follower_is_never_complete(tmp_path: Path, told: bool) -> None:
    """Also where its lead has ended it in good order, and its own TERM comes then: the lead may begin again."""
    container = Container(tmp_path, 1, broker=0)
    container.wait_for_broker()
    if told:
        container.tell_to_end()
    assert container.code() == FOLLOWER_ENDED


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_that_has_ended_is_not_begun_again_for_a_signal_during_what_comes_after_it(
    tmp_path: Path, code: int
) -> None:
    container = Container(tmp_path, 0, broker=code, post=f"touch {tmp_path}/post; sleep 1\n")
    wait_for((tmp_path / "post").exists, "what comes after it has begun")
    container.tell_to_end()
    assert container.code() == code != UNSERVED
