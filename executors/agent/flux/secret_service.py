"""Brings a job's secret environment to whichever node its tasks run on, by Flux's own messages (CURVE between brokers).

Where the agent's files are on one node only (pods), the loader in front of a job asks rank 0 for the text that
`secrets.write_secrets` left there. A text is given once and removed; its name cannot be guessed, and Flux passes on
only what the instance's owner asks.
"""

from __future__ import annotations

import base64
import errno
import os
import re
import sys
import time
from typing import Any, List, Optional

from . import secrets

SERVICE = "fxo"
TOPIC = SERVICE + ".secret"

#: Seconds for an agent that is being started again.
_PATIENCE = 60.0
_NAME = re.compile(r"env-[0-9]+-[0-9]+-[0-9a-f]{32}\.[0-9]+\Z")


def serve(handle: Any, directory: str) -> Any:
    """Answer requests for files of ``directory``; the watcher, which the caller keeps. In the reactor's thread."""
    import flux.constants

    owner = int(handle.attr_get("security.owner"))

    def answer(_handle: Any, _watcher: Any, message: Any, _args: Any) -> None:
        name = (message.payload or {}).get("name")
        if message.userid not in (owner, None) or not isinstance(name, str) or not _NAME.match(name):
            handle.respond(message, {"error": "not a secret of this instance"})
            return
        path = os.path.join(directory, name)
        try:
            with open(path, "rb") as data:
                found = data.read()
            os.unlink(path)
        except OSError as err:
            handle.respond(message, {"error": "the secret environment of this job is not there: %s" % err.strerror})
            return
        handle.respond(message, {"data": base64.b64encode(found).decode("ascii")})

    handle.service_register(SERVICE).get()
    watcher = handle.msg_watcher_create(answer, flux.constants.FLUX_MSGTYPE_REQUEST, TOPIC)
    watcher.start()
    return watcher


def load(base: str, command: List[str]) -> int:
    """In front of a job: fetch its secret environment and become the job. The exit code when that fails.

    ``base``: of the files on this machine, or a name to ask rank 0 for.
    """
    name = "%s.%s" % (base, os.environ.get("FLUX_TASK_RANK", "0"))
    data = _read(name) if os.path.isabs(base) else _fetch(name)
    if data is None:
        return 126
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if b"\0" in data:
        environ = dict(os.environb)
        environ.update(secrets.read_secrets(data))
        try:
            os.execvpe(command[0], command, environ)
        except OSError as err:
            print("%s: %s" % (command[0], err.strerror), file=sys.stderr)
            return 127 if isinstance(err, FileNotFoundError) else 126
    fd = os.memfd_create("env", 0)
    # A number of one digit, which is all that some shells can close.
    if fd != 9:
        os.dup2(fd, 9)
        os.close(fd)
    os.write(9, data)
    os.lseek(9, 0, os.SEEK_SET)
    shell = secrets.bash_or_sh()
    return os.execv(shell, [shell, "-c", '. /proc/self/fd/9; exec 9<&-; exec "$@"', "sh"] + command)


def _read(path: str) -> Optional[bytes]:
    try:
        with open(path, "rb") as data:
            found = data.read()
        os.unlink(path)
    except OSError as err:
        print("the secret environment of this job is not on %s: %s" % (os.uname().nodename, err), file=sys.stderr)
        return None
    return found


def _fetch(name: str) -> Optional[bytes]:
    import flux

    handle = flux.Flux()
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            answer = handle.rpc(TOPIC, {"name": name}, nodeid=0).get()
            break
        except OSError as err:
            if err.errno not in (errno.ENOSYS, errno.EHOSTUNREACH) or time.monotonic() > deadline:
                answer = {"error": "the agent cannot be asked for the secret environment of this job: %s" % err}
                break
        time.sleep(0.2)  # its supervisor is starting it again; nothing tells a job of that
    if "error" in answer:
        print(answer["error"], file=sys.stderr)
        return None
    return base64.b64decode(answer["data"])
