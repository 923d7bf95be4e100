"""The outermost process of an instance on this machine: it outlives its client, and tidies up after the instance.

It begins the instance, holds its lock, and adopts what jobs detach (it is a *child subreaper*, prctl(2)): whatever a
process does to its session or environment, it stays below the keeper. When the instance has ended, well or badly, the
keeper ends what is left there and removes the run's directory. SIGTERM (SIGHUP, SIGINT) to it ends the instance in good
order, and by force what does not follow.

A client waits for it to start, so it imports little, and most of that while the instance starts already.
"""

from __future__ import annotations

import os
import signal
import sys

from ..signals import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional, Set, Tuple

#: Signals that ask for the end.
_ENDING = frozenset([signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
#: Seconds from a request to end until the instance is ended by force: with an agent, which ends jobs in good order and
#: gives them a grace; and without one, while the instance starts.
AGENT_LIMIT = 30
START_LIMIT = 10
#: Seconds from TERM to KILL for what is left when the instance has ended, and until that is given up.
GRACE = 3.0
GIVE_UP = 10.0


class _Keeper:
    def __init__(self, directory: str, log: str) -> None:
        self._directory = directory
        self._log = log
        self._child = 0
        self._forced = False

    def run(self, command: List[str]) -> int:
        """Run the instance to its end, and tidy up; its exit code."""
        lock = _take_stdin()
        wanted = [one for one in _ENDING if signal.getsignal(one) is not signal.SIG_IGN]
        signals = Signals(signal.SIGCHLD, signal.SIGALRM, *wanted)
        # Programs expect to end by what Python ignores for itself, and by what a shell has what it starts in the
        # background ignore: a session of its own has no terminal whose keys could be meant for somebody else.
        expected = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT]
        self._child = os.posix_spawnp(command[0], command, os.environ, setsigdef=expected, setsigmask=[])
        from .. import process_tree  # while the instance starts
        from .lock import hold

        hold(
            self._directory
        )  # for itself too: the kernel names the process that locked a file, not one that inherited it
        adopts = process_tree.become_subreaper()
        code = self._wait(signals)
        signal.alarm(0)
        left = self._end_rest("" if code == 0 and adopts else self._epoch())
        if left:
            print("keeper: %s cannot be ended" % ", ".join("process %d" % pid for pid in left), file=sys.stderr)
        self._remove(lock, keep_log=bool(code or left))
        return code

    def _wait(self, signals: Signals) -> int:
        asked = False
        while True:
            status = self._reap()
            if status is not None:
                return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            came = signals.wait()
            if not asked and _ENDING.intersection(came):  # a Flux broker that is told twice breaks off its end
                asked = True
                signal.alarm(self._ask_to_end())
            if signal.SIGALRM in came:
                self._force()

    def _reap(self) -> Optional[int]:
        """The instance's status, if it has ended; those of orphans are dropped."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == self._child:
                return status
            if not pid:
                return None

    # -- being asked to end

    def _ask_to_end(self) -> int:
        """Seconds that it has for that."""
        pid, up = self._agent()
        pid = pid or (0 if up else self._child)
        if pid:  # else the agent is ending already, and the instance with it
            try:
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)  # a stopped process would not see it
            except ProcessLookupError:
                pass  # it has just ended
        return AGENT_LIMIT if up else START_LIMIT

    def _agent(self) -> Tuple[int, bool]:
        """The agent's pid, 0 where none answers; and whether there has been one."""
        import socket

        path = os.path.join(self._directory, "agent.sock")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(path)
            except OSError:
                return 0, os.path.exists(path)
            peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
            return int.from_bytes(peer[:4], sys.byteorder), True

    def _force(self) -> None:
        from .. import process_tree

        self._forced = True
        process_tree.send(process_tree.below(os.getpid()), signal.SIGKILL)

    # -- tidying up

    def _epoch(self) -> str:
        try:
            with open(os.path.join(self._directory, "epoch"), encoding="ascii") as text:
                return text.read()
        except OSError:
            return ""

    def _end_rest(self, epoch: str) -> List[int]:
        """End everything below, and what carries ``epoch`` in its environment. Returns what is left.

        The epoch finds what had been orphaned before the keeper could adopt it.
        """
        import time

        from .. import process_tree

        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        start = time.monotonic()
        told: Set[int] = set()
        while True:
            _reap()
            found = process_tree.below(os.getpid()) if _has_children() else []
            if epoch:
                found += process_tree.processes_of_epoch(epoch)
            passed = time.monotonic() - start
            if not found or passed > GIVE_UP:
                return [process.pid for process in found]
            if self._forced or passed > GRACE:
                process_tree.send(found, signal.SIGKILL)
            else:
                process_tree.send([one for one in found if one.pid not in told], signal.SIGTERM)
                told.update(one.pid for one in found)
            # The end of a child is told; that of a grandchild, or of a process that only carries the epoch, is not.
            signal.sigtimedwait([signal.SIGCHLD], 0.1)

    def _remove(self, lock: int, keep_log: bool) -> None:
        """The directory is renamed first: while it is being removed, the next instance of the run may make it again."""
        away = "%s.%d" % (self._directory, os.getpid())
        try:
            if os.path.samestat(os.fstat(lock), os.stat(os.path.join(self._directory, "instance.lock"))):
                os.rename(self._directory, away)
                os.waitpid(os.posix_spawnp("rm", ["rm", "-rf", away], os.environ), 0)
            if not keep_log:
                os.unlink(self._log)
        except OSError as err:  # somebody has removed it before us
            print("keeper: %s" % err, file=sys.stderr)


def _take_stdin() -> int:
    """The instance's lock, which is this program's stdin.

    What begins the instance inherits it: the broker, or the agent of the embedded engine. Neither passes it on to jobs.
    """
    lock = os.dup(0)
    os.set_inheritable(lock, True)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return lock


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def main(arguments: List[str]) -> int:
    """``arguments``: the run's directory, its log, and the command that is the instance."""
    directory, log, *command = arguments
    return _Keeper(directory, log).run(command)
