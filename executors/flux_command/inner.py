"""What runs a task's command on a machine that has nothing of the session's: another node, or a pod. Pure.

``flux run`` inside a task gets an instance of its own within the task's cores, where the instance around it would have
it wait for cores that the task itself holds. What does that is a program ``flux`` that is first on the task's PATH. On
this machine the session has it in its directory (`program`); elsewhere (`command`) each task writes it into the
directory that Flux makes for its job, and removes after.

A task that was told to end may leave processes that ignore TERM, and its wrapper does not wait for them. Elsewhere its
job lasts until they have ended or are killed, after the seconds that Flux itself grants between TERM and KILL; on this
machine the session looks for them (`leftovers`).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from executors.flux_command.environment import TASK

#: In the environment of the instance within a task: its own jobs are not started in one more.
_INNER = "FLUXOP_NEXTFLOW_INNER"
#: In the environment of what is the task's own: its job's id.
_OF = "FLUXOP_NEXTFLOW_JOB"

_TEXT = f"""\
[ -n "${TASK}" ] && [ -z "${_INNER}" ] && case "$1" in
run | alloc)
    {_INNER}=1
    export {_INNER}
    exec "$flux" start "$flux" "$@"
    ;;
esac
exec "$flux" "$@"
"""

#: Seconds from TERM to KILL for what a wrapper has left: one less than Flux's own, which end this shell as well.
GRACE = 4

#: The task itself is started whatever becomes of its program ``flux``: a full disk costs it this program only. TERM
#: comes to the whole group of processes, and is noted here. A process that is left is known by a variable that only the
#: task has, whatever group it has made for itself. A kill is passed on as a kill.
_RUN = f"""\
{{
    bin=$FLUX_JOB_TMPDIR/fluxop-bin
    [ -d "$FLUX_JOB_TMPDIR" ] && flux=$(command -v flux) && mkdir "$bin" &&
        printf '#!/bin/sh\\nflux="%s"\\n%s' "$flux" "$1" > "$bin/flux" && chmod 700 "$bin/flux" && PATH=$bin:$PATH
}} 2> /dev/null
shift
told=
trap told=1 TERM
{_OF}=$FLUX_JOB_ID "$@"
status=$?
left() {{
    grep -lzFx "{_OF}=$FLUX_JOB_ID" /proc/[0-9]*/environ 2> /dev/null | tr -dc '0-9\\n'
}}
grace={GRACE}
while [ -n "$told" ] && pids=$(left) && [ -n "$pids" ]; do
    if [ $grace -eq 0 ]; then
        kill -KILL $pids 2> /dev/null
        told=
    else
        sleep 1
        grace=$((grace - 1))
    fi
done
[ $status -ne 137 ] || kill -KILL $$
exit $status
"""


def program(flux: str) -> str:
    """A text for sh. ``flux`` is the path of Flux's own command."""
    return f"#!/bin/sh\nflux={shlex.quote(flux)}\n{_TEXT}"


def command(argv: Sequence[str]) -> list[str]:
    """What runs a task's ``argv`` on a machine where there is nothing of the session's."""
    return ["/bin/sh", "-c", _RUN, "sh", _TEXT, *argv]
