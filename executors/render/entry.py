"""The entry script of all our containers: one constant text (`inside/entry.sh`), the same for every MiniCluster.

Everything that varies reaches it by environment variables and arguments, so that nothing a user gives is pasted into a
shell text. It is POSIX sh; hooks (shell texts of the user's, files in the ConfigMap) are sourced by the shell that runs
it, which is bash where there are any, since upstream's users write them for bash. Where our files are not mounted
(`places`) this very text is in a variable, evaluated by what `call` returns. It writes all files to their places, and
starts a second time from its own file.

    entry.sh broker ARGV...             the main container: ARGV is the whole broker command
    entry.sh beside ARGV...             a sidecar or service: hooks, then ARGV, if any
    entry.sh view                       init container: copies the view's Flux to the shared volume
    entry.sh batch FILE LOGS OPTION...  the lead's initial program of mode "batch": each line a job
    entry.sh job held|now BROKERS       the lead's initial program for a command: one job, and how many it needs
    entry.sh gone                       the last that a lead's broker runs after that
    entry.sh relay SECONDS              a stream to the agent, which may still be starting
    entry.sh probe                      liveness of the agent, on the lead
    entry.sh ready                      readiness of a resource's lead: whether its instance runs

What each exit code of `broker` means to the Job is in `objects.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

from executors.render import names
from executors.render.places import MOUNTED

#: Environment variables of the script.
FAILURES = "FLUXOP_INDEX_FAILURES"
CONTAINER = "FLUXOP_CONTAINER"
VIEW = "FLUXOP_VIEW"
ARCHIVE = "FLUXOP_ARCHIVE"
STRICT = "FLUXOP_STRICT"
TIMED = "FLUXOP_TIMED"
SERVES = "FLUXOP_SERVES"
NO_WAIT = "FLUXOP_NO_WAIT"
ROOT = "FLUXOP_ROOT"
#: Below it the texts of variables are written.
TEXTS = "FLUXOP_TEXTS"
#: Set where the MiniCluster is a resource, which suspends, drains and deletes may end without its being a failure.
RESOURCE = "FLUXOP_RESOURCE"
#: Where upstream's users look for the socket and for what they source (`/mnt/flux`).
SHARED = "FLUXOP_SHARED"
#: Set where a follower that ends is not to be started again.
COMPLETE = "FLUXOP_COMPLETE"
#: Set where nobody is to find the socket.
NO_SOCKET = "FLUXOP_NO_SOCKET"
#: Brokers that have to be there before a resource's instance counts as ready; where the broker itself waits for fewer.
QUORUM = "FLUXOP_QUORUM"
#: The jobspec of a resource's command, where it is one job; not a word of the command line, which Flux logs.
JOB = "FLUXOP_JOB"
#: Our texts, where they are not mounted.
ENTRY = "FLUXOP_ENTRY"
BROKER = "FLUXOP_BROKER"
AGENT = "FLUXOP_AGENT"
#: What of it is beyond what one variable takes.
AGENT_REST = "FLUXOP_AGENT_REST"
SHELL = "FLUXOP_SHELL"
CURVE = "FLUXOP_CURVE"

#: As the agent (`executors.agent.protocol.server`) calls the file.
SERVED = "served"
#: Seconds that a follower which is told to end leaves to its lead. When a whole MiniCluster is deleted, the lead ends
#: the jobs, the followers' tasks too, and then the followers; a follower that left at once would take its tasks along.
_FOLLOWER_PATIENCE = 4
#: Seconds after which a resource's lead that was told to end is killed: before its pod is (`pod.GRACE_PERIOD`), so that
#: its exit code is ours and says that nothing has failed.
_LEAD_PATIENCE = 8
#: Seconds of it that are the jobs'; the rest is for the broker to end in good order, and to save its state.
_JOBS_PATIENCE = 5
#: Seconds in which the Job ends the followers of a lead that has ended.
_LAST_WAIT = 6

_INSIDE = Path(__file__).with_name("inside")


def _assembled() -> str:
    """`inside/entry.sh`, with the programs of that directory and constants of this package."""
    text = (_INSIDE / "entry.sh").read_text()
    constants: dict[str, object] = {
        "FILES": MOUNTED.files,
        "SECRET": MOUNTED.secret,
        "STATE": MOUNTED.state,
        "KEY": names.CERTIFICATE_KEY,
        "WISH": "${FLUXOP_ROOT:-}" + MOUNTED.wish,
        "URI": MOUNTED.broker_uri,  # views are mounted
        "LEAD_LOST": names.LEAD_LOST,
        "FOLLOWER_ENDED": names.FOLLOWER_ENDED,
        "UNSERVED": names.UNSERVED,
        "SERVED": SERVED,
        "PATIENCE": _FOLLOWER_PATIENCE,
        "LEAD_PATIENCE": _LEAD_PATIENCE,
        "JOBS_PATIENCE": _JOBS_PATIENCE,
        "RESOURCE_PATIENCE": _LEAD_PATIENCE - 1,
        "LAST_WAIT": _LAST_WAIT,
    }
    for name, value in constants.items():
        text = text.replace(f"@{name}@", str(value))
    return re.sub(r"(?m)^@(\w+\.py)@\n", lambda found: (_INSIDE / found[1]).read_text(), text)


#: The text.
ENTRY_SCRIPT = _assembled()


def call(role: str, *words: str) -> list[str]:
    """The argv that runs the script in a container of either kind, with volumes or without."""
    return ["/bin/sh", "-c", f'eval "${{{ENTRY}:-. {MOUNTED.entry}}}"', "entry", role, *words]


def relay_command(patience: float) -> list[str]:
    """The argv to start in the lead's container for a stream to its agent, which may take ``patience`` seconds."""
    return call("relay", f"{patience:g}")
