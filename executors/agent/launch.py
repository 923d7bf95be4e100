"""Small prefixes put before a job's command, and the files they use. Both are plain argv: nothing is pasted into text.

* A *secret loader* reads a 0600 file of exports, removes it and then becomes the job, so that a secret is neither
  in the jobspec (which Flux stores) nor on a command line.
* A *meter* runs the job as its child and appends CPU seconds and peak memory to a file that the agent reads. Flux
  does not report either. It is Perl because that starts in 3 ms where Python takes 20; without Perl, no usage.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from typing import Dict, Iterable, List, Mapping, Optional

from .wire import MARK

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

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

#: Put between two braces, and taken out again.
_BETWEEN = "\001"
_BRACES = "exec \"${@//$'\\001'/}\""

#: Variables that a shell does not take from a text as they are: it has them itself, counts in them, or acts on them
#: while it reads on.
_OF_SHELLS = re.compile(
    r"(UID|EUID|PPID|GROUPS|DIRSTACK|FUNCNAME|RANDOM|SRANDOM|SECONDS|LINENO|HISTCMD|EPOCH.*|BASH.*|SHELLOPTS|SHLVL|PWD|"
    r"OLDPWD|PIPESTATUS|OPTIND|OPTARG|OPTERR|PS4|IFS|POSIXLY_CORRECT|COMP_.*|READLINE_.*|MAPFILE|REPLY|_|LC_.*|LANG|"
    r"TMOUT|EXECIGNORE|GLOBIGNORE|FIGNORE|COLUMNS|LINES|LD_.*)\Z"
)

#: getrusage(2) by number, since Perl has no name for it in its core. Other machines go without usage.
_GETRUSAGE = {"x86_64": "98", "aarch64": "165", "riscv64": "165", "ppc64le": "77", "s390x": "77"}

# The handlers are there to outlive a signal that is sent to the whole process group, and they end with exec, so the
# job itself starts with the default ones. ru_maxrss is in KiB and is that of the largest process, not of their sum.
_METER = r"""
my ($file, $number) = splice(@ARGV, 0, 2);
$SIG{$_} = sub {} for qw(HUP INT QUIT TERM ALRM USR1 USR2);
my $pid = fork;
if (!$pid) {
  no warnings;
  open(STDIN, "<", "/dev/null");
  exec {$ARGV[0]} @ARGV;
  print STDERR "$ARGV[0]: $!\n";
  exit($!{ENOENT} ? 127 : 126);
}
1 while waitpid($pid, 0) == -1 && $!{EINTR};
my $status = $?;
my $usage = "\0" x 256;
if (defined $pid && syscall($number + 0, -1, $usage) == 0 && open(my $out, ">>", $file)) {
  my @u = unpack("q5", $usage);
  syswrite($out, sprintf("%s %.6f %d\n", $ENV{FLUX_JOB_ID} || "-", $u[0] + $u[2] + ($u[1] + $u[3]) / 1e6, $u[4]));
  close $out;
}
if ($status & 127) { $SIG{$_} = "DEFAULT" for keys %SIG; kill $status & 127, $$; }
exit($status & 127 ? 128 + ($status & 127) : $status >> 8);
"""


def bad_names(names: Iterable[str]) -> List[str]:
    """Those of ``names`` that no shell accepts."""
    return [name for name in names if not _NAME.match(name)]


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
    return [shell(), "-c", _SECRET_LOADER, "sh", base] + command


def with_sent_secrets(command: List[str], base: str, by_shell: bool) -> List[str]:
    """Where the file is on the agent's node only: see `secret_service`."""
    fetch = _loader(os.path.basename(base))
    if not by_shell:
        return fetch + command
    return [shell(), "-c", _NEAR_LOADER, "sh", base, str(len(fetch)), *fetch, *command]


def without_templates(command: List[str]) -> List[str]:
    """A command of which Flux's shell changes nothing. It fills in what it knows in words like "{{id}}", takes 1,023
    bytes between such braces at most, and has no word for a brace.
    """
    if not any("{{" in word for word in command):
        return command
    if shutil.which("bash") is not None and not any(_BETWEEN in word for word in command):
        return [shell(), "-c", _BRACES, "sh"] + [re.sub(r"\{(?=\{)", "{" + _BETWEEN, word) for word in command]
    # Quotes that end and begin again between two braces.
    return ["/bin/sh", "-c", "exec " + " ".join(shlex.quote(word).replace("{", "{''") for word in command)]


def _loader(base: str) -> List[str]:
    # By its path: the job may have a PATH of its own.
    return [shutil.which("flux") or "flux", "python", os.path.abspath(sys.argv[0]), "secret", base]


def shell() -> str:
    return shutil.which("bash") or "/bin/sh"


def base_environment(environ: Mapping[str, str], without: Iterable[str]) -> Dict[str, str]:
    """What jobs inherit from the container that the agent runs in: its own environment less what Flux put there.

    ``without``: names that hold secrets, which have no business in a jobspec.
    """
    dropped = set(without) | {
        MARK,
        "LUA_PATH",
        "LUA_CPATH",
        "JOB_COMPLETION_INDEX",
        "HOSTNAME",
        "PWD",
        "OLDPWD",
        "SHLVL",
    }
    kept = {}
    for name, value in environ.items():
        if name in dropped or name.startswith(("FLUX_", "FLUXOP_")):
            continue
        if name == "PYTHONPATH":
            value = os.pathsep.join(p for p in value.split(os.pathsep) if not re.search(r"/flux/python3\.\d+\Z", p))
            if not value:
                continue
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            continue  # JSON has no bytes that are not text
        kept[name] = value
    return kept


def merged(base: Mapping[str, str], given: Mapping[str, Optional[str]]) -> Dict[str, str]:
    """A job's environment: ``given`` over ``base``; None removes a variable."""
    both: Dict[str, Optional[str]] = dict(base)
    both.update(given)
    return {name: value for name, value in both.items() if value is not None}


def meter_available() -> bool:
    return shutil.which("perl") is not None and os.uname().machine in _GETRUSAGE


def with_meter(command: List[str], usage_file: str) -> List[str]:
    return [
        shutil.which("perl") or "perl",
        "-MErrno",
        "-e",
        _METER,
        usage_file,
        _GETRUSAGE[os.uname().machine],
    ] + command


class UsageReader:
    """Reads the lines that meters append; ``take(job id)`` gives the sum over a job's tasks, once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self._found: Dict[str, Dict[str, float]] = {}
        self._lines: Dict[str, int] = {}

    def take(self, job_id: str, tasks: int) -> Optional[Dict[str, float]]:
        """{"cpu": seconds, "max_rss": bytes} or None. Called when the job's finish event is here, so its lines are.

        None too unless every task has written one: tasks on other nodes may have no way to this file.
        """
        if self._lines.get(job_id, 0) < tasks:
            self._read()
        found = self._found.pop(job_id, None)
        return found if self._lines.pop(job_id, 0) >= tasks else None

    def _read(self) -> None:
        try:
            with open(self._path, "rb") as lines:
                lines.seek(self._offset)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    # Flux writes its ids with a florin sign where the locale has one; keys are the plain form.
                    self._add(line.decode("utf-8", "replace").replace("\u0192", "f").split())
        except FileNotFoundError:
            return

    def _add(self, words: List[str]) -> None:
        if len(words) != 3:
            return
        usage = self._found.setdefault(words[0], {"cpu": 0.0, "max_rss": 0})
        self._lines[words[0]] = self._lines.get(words[0], 0) + 1
        usage["cpu"] += float(words[1])
        usage["max_rss"] = max(usage["max_rss"], int(words[2]) * 1024)
