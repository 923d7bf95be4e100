"""Where a bed's processes run: a number, a directory, an address, and for a node namespaces of its own.

Several beds run side by side: each holds the lock of its number, from which its ports and its network follow.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.testbed import keeper
from tests.cluster.testbed.missing import Missing, need_commands
from tests.cluster.testbed.waiting import wait_until

_NUMBERS = range(16)
_PORTS = 10
# The cluster's address for its own API server. Nothing translates addresses here: the bed's network has it itself.
SERVICE_ADDRESS = "10.96.0.1"
LIMIT = 30.0


class Place:
    """A directory and an address for a bed; with namespaces of its own if ``isolated``, which needs root.

    It goes, with all in it, when ``close`` is called or this process ends in whatever way; one that ``stays`` goes when
    ``end`` is called with its number. Raises Missing when there is none to be had.
    """

    def __init__(self, *, isolated: bool, stays: bool = False) -> None:
        if isolated:
            need_namespaces()
        self.isolated = isolated
        number, lock = _free_number(isolated)
        self.directory = beds_directory() / str(number)
        self.logs = self.directory / "logs"
        # As the host sees it; in the bed's own network also the node's and the DNS server's.
        self.address = str(_network(number)[1]) if isolated else "127.0.0.1"
        self.network = str(_network(number))
        self._first_port = _first_port(number)
        self._spawned: list[subprocess.Popen[bytes]] = []
        self.logs.mkdir(parents=True)
        self._keeper = self._start_keeper(lock, stays)
        if isolated:
            self._init = int((self.directory / "init.pid").read_text())
            try:
                self._connect(str(_network(number)[2]))
            except BaseException:
                self.close()
                raise

    def port(self, offset: int) -> int:
        """A port that is this bed's own; of the first ten."""
        return self._first_port + offset

    def inside(self, argv: list[str]) -> list[str]:
        """The command, to run in the bed's namespaces."""
        if not self.isolated:
            return argv
        return ["nsenter", f"--target={self._init}", "--mount", "--net", "--pid", "--ipc", "--", *argv]

    def run(self, *argv: str, input: str | None = None) -> str:
        """What a command prints that runs in the bed's namespaces. Raises RuntimeError with its output if it fails."""
        return _run(self.inside(list(argv)), input)

    def spawn(self, argv: list[str], log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Starts a program in the bed's namespaces, which ends with the bed at the latest."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                self.inside(argv),
                cwd=self.directory,
                # The mark is what the keeper knows it by.
                env={**os.environ, keeper.MARK: str(self.directory), **env},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._spawned.append(process)
        return process

    def close(self) -> None:
        """Ends every process of the bed and removes all that belongs to it."""
        self._keeper.terminate()
        self._keeper.communicate()
        for process in self._spawned:
            process.wait()
        if self._keeper.returncode:
            log = self.logs / "keeper.log"
            raise RuntimeError(f"the test bed did not end, see {log}:\n{log.read_text()[-2000:]}")

    def _start_keeper(self, lock: int, stays: bool) -> subprocess.Popen[bytes]:
        arguments = [*(["--isolated"] if self.isolated else []), *(["--stay"] if stays else [])]
        with os.fdopen(lock, "w"), (self.logs / "keeper.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", keeper.__name__, str(self.directory), *arguments],
                cwd=Path(__file__).parents[3],
                stdin=subprocess.DEVNULL if stays else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # The keeper holds the lock from now on.
                pass_fds=[lock],
                # An interrupt from the terminal is for us: it is we who then end the bed.
                start_new_session=True,
            )
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                process.wait()
                # The directory is gone, the open log is not.
                raise Missing(f"no namespaces for a Kubernetes node: {os.pread(log.fileno(), 2000, 0)!r}")
        (self.directory / "keeper.pid").write_text(str(process.pid))
        if stays:
            (self.directory / "stays").touch()
        return process

    def _connect(self, host_address: str) -> None:
        """A bridge with the bed's address, for its pods, and a link to it from this machine."""
        name = keeper.link_name(self.directory)
        _run(["ip", "link", "add", name, "type", "veth", "peer", "name", "host", "netns", str(self._init)])
        self.run(
            *("ip", "-batch", "-"),
            # An address of its own: a bridge that takes its cards' lowest one changes it with every pod.
            input=f"""link add pods address 02:00:00:00:00:01 type bridge
link set host master pods
address add {self.address}/16 dev pods
address add {SERVICE_ADDRESS}/32 dev pods
link set host up
link set pods up
""",
        )
        _run(["ip", "-batch", "-"], f"address add {host_address}/16 dev {name}\nlink set {name} up\n")


def need_namespaces() -> None:
    """Raises Missing without root and the commands that make namespaces. Whether the kernel allows it shows later."""
    need_commands("ip", "unshare", "nsenter", "mount")
    if os.geteuid() != 0:
        raise Missing("a Kubernetes node needs root: run the tests as root")


def beds_directory() -> Path:
    """Of the beds and their locks; a short name, since names of sockets are limited to 107 bytes."""
    path = Path(tempfile.gettempdir()) / f"fluxop-testbed-{os.geteuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.geteuid():
        raise Missing(f"{path} belongs to another user; remove it, or set TMPDIR")
    return path


def staying() -> list[int]:
    """The numbers of the beds that outlive whoever started them."""
    return sorted(int(path.parent.name) for path in beds_directory().glob("*/stays"))


def end(number: int) -> None:
    """Ends the bed of that number, and returns when it is gone."""
    directory = beds_directory() / str(number)
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((directory / "keeper.pid").read_text()), signal.SIGTERM)
    wait_until(f"the end of bed {number}", lambda: not directory.exists(), LIMIT)


def _free_number(isolated: bool) -> tuple[int, int]:
    """A number whose lock nobody holds, and that lock, an open file. What a dead bed has left there is removed."""
    for number in _NUMBERS:
        directory = beds_directory() / str(number)
        lock = os.open(directory.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        keeper.sweep(directory)
        if _network_is_free(number) if isolated else _ports_are_free(number):
            return number, lock
        os.close(lock)
    raise Missing(f"no free number for a test bed: {len(_NUMBERS)} run already, or their networks or ports are in use")


def _network(number: int) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(f"10.{200 + number}.0.0/16")


def _network_is_free(number: int) -> bool:
    routes = json.loads(_run(["ip", "-json", "-4", "route"]) or "[]")
    taken = [ipaddress.IPv4Network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]
    return not any(network.overlaps(_network(number)) for network in taken)


def _first_port(number: int) -> int:
    return 24000 + _PORTS * number


def _ports_are_free(number: int) -> bool:
    for port in range(_first_port(number), _first_port(number) + _PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def _run(argv: list[str], input: str | None = None) -> str:
    done = subprocess.run(argv, input=input or "", capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
