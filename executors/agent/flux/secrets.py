"""A job's secret environment: neither in the jobspec, which Flux stores, nor on a command line.

It lies in files of mode 0600, one of each task. A *loader* before the job's command reads the task's own, removes it,
and becomes the job; it is plain argv: nothing is pasted into text.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from typing import Dict, List, Mapping

#: Nothing of its own is in a variable, neither of the job's nor of its secrets, and the file is gone before it is read.
_FILE = '"$1.${FLUX_TASK_RANK:-0}"'
_SECRET_LOADER = (
    'if [ ! -r FILE ]; then echo "the secret environment of this job is not on $(/bin/uname -n): $1" >&2; '
    "exit 126; fi; "
    'exec 9<FILE; /bin/rm -f FILE; shift; . /dev/fd/9; exec 9<&-; exec "$@" </dev/null'
).replace("FILE", _FILE)

#: Where only the agent's own node has the file: on another one, the first words that follow fetch it. Starting Flux's
#: Python for that costs a job 0.1 s, several times what the rest of a short one does.
_NEAR_LOADER = (
    'if [ ! -r FILE ]; then shift 2; exec "$@"; fi; '
    'exec 9<FILE; /bin/rm -f FILE; shift; shift $(($1 + 1)); . /dev/fd/9; exec 9<&-; exec "$@" </dev/null'
).replace("FILE", _FILE)

#: Variables that a shell does not take from a text as they are: it has them itself, counts in them, or acts on them
#: while it reads on.
_OF_SHELLS = re.compile(
    r"(UID|EUID|PPID|GROUPS|DIRSTACK|FUNCNAME|RANDOM|SRANDOM|SECONDS|LINENO|HISTCMD|EPOCH.*|BASH.*|SHELLOPTS|SHLVL|PWD|"
    r"OLDPWD|PIPESTATUS|OPTIND|OPTARG|OPTERR|PS4|IFS|POSIXLY_CORRECT|COMP_.*|READLINE_.*|MAPFILE|REPLY|_|LC_.*|LANG|"
    r"TMOUT|EXECIGNORE|GLOBIGNORE|FIGNORE|COLUMNS|LINES|LD_.*)\Z"
)

#: Tasks of a job with a secret environment: each has a file.
MAX_SECRET_TASKS = 4096


def write_secrets(base: str, env: Dict[str, str], tasks: int, paths: List[str], for_shell: bool) -> None:
    """One 0600 file per task (each task removes its own); ``paths`` gets each as it is made.

    ``for_shell``: as exports; else NAME=VALUE with a null byte after each. Raises OSError, and ValueError for too many
    tasks.
    """
    if tasks > MAX_SECRET_TASKS:
        raise ValueError("secret_env: %d tasks, more than %d cannot have one" % (tasks, MAX_SECRET_TASKS))
    if for_shell:
        text = "".join("export %s='%s'\n" % (name, value.replace("'", "'\\''")) for name, value in env.items())
    else:
        text = "".join("%s=%s\0" % pair for pair in env.items())
    for rank in range(tasks):
        path = "%s.%d" % (base, rank)
        paths.append(path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as out:
            out.write(text)


def read_secrets(data: bytes) -> Dict[bytes, bytes]:
    """What `write_secrets` wrote for others than shells."""
    return dict(entry.split(b"=", 1) for entry in data.split(b"\0") if entry)


def a_shell_takes(env: Mapping[str, str]) -> bool:
    """Whether a shell can bring these variables to a job as they are."""
    return not any(_OF_SHELLS.match(name) for name in env)


def with_secrets(command: List[str], base: str, by_shell: bool) -> List[str]:
    if not by_shell:
        return _loader(base) + command
    # Not any sh: some drop what bash has exported, the function `module` of environment modules above all.
    return [bash_or_sh(), "-c", _SECRET_LOADER, "sh", base] + command


def with_sent_secrets(command: List[str], base: str, by_shell: bool) -> List[str]:
    """Where the file is on the agent's node only: see `secret_service`."""
    fetch = _loader(os.path.basename(base))
    if not by_shell:
        return fetch + command
    return [bash_or_sh(), "-c", _NEAR_LOADER, "sh", base, str(len(fetch)), *fetch, *command]


def _loader(base: str) -> List[str]:
    # By its path: the job may have a PATH of its own.
    return [shutil.which("flux") or "flux", "python", os.path.abspath(sys.argv[0]), "secret", base]


def bash_or_sh() -> str:
    return shutil.which("bash") or "/bin/sh"
