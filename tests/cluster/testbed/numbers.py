"""The numbers of beds: each has a directory, a lock, ports and a network of its own, so that many run side by side."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.testbed import keeper
from tests.cluster.testbed.addresses import IPV4
from tests.cluster.testbed.missing import Missing
from tests.cluster.testbed.waiting import wait_until

_MOST = 16
_PORTS = 10
LIMIT = 30.0


@dataclass(frozen=True)
class Number:
    """One bed's share of what all beds of this machine have in common."""

    value: int

    @property
    def directory(self) -> Path:
        return beds_directory() / str(self.value)

    @property
    def ports(self) -> range:
        """On the loopback interface."""
        return range(24000 + _PORTS * self.value, 24000 + _PORTS * (self.value + 1))

    def network_is_free(self) -> bool:
        """Whether no network of this machine is that of a bed of this number; IPv6's are of a range of their own."""
        network = IPV4.network(self.value)
        routes = subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, check=True).stdout
        taken = [route["dst"] for route in json.loads(routes or "[]") if route["dst"] != "default"]
        return not any(ipaddress.IPv4Network(dst, strict=False).overlaps(network) for dst in taken)

    def ports_are_free(self) -> bool:
        for port in self.ports:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    return False
        return True


def beds_directory() -> Path:
    """Of the beds and their locks; a short name, since names of sockets are limited to 107 bytes."""
    path = Path(tempfile.gettempdir()) / f"fluxop-testbed-{os.geteuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.geteuid():
        raise Missing(f"{path} belongs to another user; remove it, or set TMPDIR")
    return path


def take(*, with_network: bool) -> tuple[Number, int]:
    """A number whose lock nobody holds, and that lock, an open file. What a dead bed has left there is removed.

    Raises Missing when there is none.
    """
    for number in map(Number, range(_MOST)):
        lock = os.open(number.directory.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        if number.directory.exists():
            keeper.sweep(number.directory)
        if number.network_is_free() if with_network else number.ports_are_free():
            return number, lock
        os.close(lock)
    raise Missing(f"no free number for a test bed: {_MOST} run already, or their networks or ports are in use")


def staying() -> list[Number]:
    """Those of the beds that outlive the process that started them."""
    return [Number(int(path.parent.name)) for path in sorted(beds_directory().glob("*/stays"))]


def end(number: Number) -> None:
    """Ends the bed of that number, and returns when it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((number.directory / "keeper.pid").read_text()), signal.SIGTERM)
    wait_until(f"the end of bed {number.value}", lambda: not number.directory.exists(), LIMIT)
