"""Where a bed's processes run: a directory, an address, and for a node namespaces of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.testbed import keeper, numbers
from tests.cluster.testbed.addresses import IPV4, Family
from tests.cluster.testbed.missing import Missing, need_commands


class Place:
    """A directory and an address for a bed; with namespaces of its own if ``isolated``, which needs root.

    It goes, with all in it, when ``close`` is called or this process ends in whatever way; one that ``stays`` goes when
    ``numbers.end`` is called. Raises Missing when there is none.
    """

    def __init__(self, *, isolated: bool, stays: bool = False, family: Family = IPV4) -> None:
        if isolated:
            need_namespaces()
        number, lock = numbers.take(with_network=isolated)
        self.isolated = isolated
        self.directory = number.directory
        self.logs = self.directory / "logs"
        self.family = family
        #: The pods' network, and where their addresses begin.
        self.network = family.network(number.value)
        self.first_pod = family.first_pod(number.value)
        # As the host sees it; in the bed's own network also the node's and the DNS server's.
        self.address = str(self.network[1]) if isolated else "127.0.0.1"
        #: Where the bed reaches this machine.
        self.host_address = str(self.network[2]) if isolated else "127.0.0.1"
        self.ports = number.ports
        self._spawned: list[subprocess.Popen[bytes]] = []
        self.logs.mkdir(parents=True)
        self._keeper = self._start_keeper(lock, stays)
        if isolated:
            self._init = int((self.directory / "init.pid").read_text())
            try:
                self._connect(self.host_address)
            except BaseException:
                self.close()
                raise

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
                # The mark is what the keeper knows it by. Go collects garbage whenever memory has doubled by default,
                # which is a tenth of what a bed's programs use of the CPU; this lets it grow to five times.
                env={"GOGC": "400", **os.environ, keeper.MARK: str(self.directory), **env},
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
        if self._keeper.returncode:
            log = self.logs / "keeper.log"
            raise RuntimeError(f"the test bed did not end, see {log}:\n{log.read_text()[-2000:]}")
        for process in self._spawned:
            process.wait()

    def _start_keeper(self, lock: int, stays: bool) -> subprocess.Popen[bytes]:
        arguments = [*(["--isolated"] if self.isolated else []), *(["--stay"] if stays else [])]
        # Opened for reading too: when no keeper comes, its file is gone before it can be opened.
        with os.fdopen(lock, "w"), (self.logs / "keeper.log").open("w+b") as log:
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
                process.communicate()
                log.seek(0)
                raise Missing(f"no namespaces for a Kubernetes node:\n{log.read().decode(errors='replace')[-2000:]}")
        (self.directory / "keeper.pid").write_text(str(process.pid))
        if stays:
            (self.directory / "stays").touch()
        return process

    def _connect(self, host_address: str) -> None:
        """A bridge with the bed's address, for its pods, and a link to it from this machine."""
        name = keeper.link_name(self.directory)
        _run(["ip", "link", "add", name, "type", "veth", "peer", "name", "host", "netns", str(self._init)])
        length, alone = self.network.prefixlen, self.network.max_prefixlen
        # Nobody else can have these addresses; IPv6 would look first.
        once = "nodad" if self.network.version == 6 else ""
        self.run(
            *("ip", "-batch", "-"),
            # An address of its own: a bridge that takes its cards' lowest one changes it with every pod.
            input=f"""link add pods address 02:00:00:00:00:01 type bridge
link set host master pods
address add {self.address}/{length} dev pods {once}
address add {self.family.api_server}/{alone} dev pods {once}
address add {self.family.caching_dns}/{alone} dev pods {once}
link set host up
link set pods up
""",
        )
        batch = f"address add {host_address}/{length} dev {name} {once}\nlink set {name} up\n"
        _run(["ip", "-batch", "-"], batch)


def need_namespaces() -> None:
    """Raises Missing without root and the commands that make namespaces. Whether the kernel allows it shows later."""
    need_commands("ip", "unshare", "nsenter", "mount")
    if os.geteuid() != 0:
        raise Missing("a Kubernetes node needs root: run the tests as root")


def _run(argv: list[str], input: str | None = None) -> str:
    done = subprocess.run(argv, input=input or "", capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
