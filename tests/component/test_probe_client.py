"""A liveness probe is no client: it must not keep an instance alive that nobody uses."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

PING = b'{"ping":1}\n'


def test_a_peer_that_only_pings_is_answered_and_does_not_keep_the_agent(tmp_path: Path) -> None:
    arguments = ["--directory", str(tmp_path), "--run", "r", "--engine", "embedded", "--idle-timeout", "1"]
    agent = subprocess.Popen([sys.executable, "-m", "executors.agent", "serve", *arguments], stderr=subprocess.DEVNULL)
    path = tmp_path / "agent.sock"
    while not path.exists():
        assert agent.poll() is None
        time.sleep(0.02)  # the agent's own notice goes to one listener only, which would be more than this
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        probe.sendall(PING)
        assert probe.recv(64) == b'{"pong":1}\n'
        assert agent.wait(30) == 0
