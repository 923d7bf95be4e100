"""When a resource's command may begin, by what the entry script tells Flux (a stand-in here, that writes it down)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from executors.render.entry import ENTRY_SCRIPT

#: Answers as Flux 0.88 does, as far as it is asked here. The job ends well.
FLUX = """#!/bin/sh
printf '%s\\n' "$*" >>"$0.log"
case "$1 $2" in
"python -S") echo '{}' ;;
"module list") printf 'Module                   Idle  S Sendq Recvq Service\\n%s  0  R 0 0 sched\\n' "$SCHEDULER" ;;
"job submit") cat >/dev/null; echo f1 ;;
"uptime "*)
    [ "$(grep -c ^uptime "$0.log")" -gt 1 ] || offline="1 offline,  "
    echo " 21:00:00 run 1s,  owner root,  depth 0,  ${offline:-}size 2"
    ;;
"job attach") [ -z "$HELD" ] || until grep -q "^job urgency" "$0.log"; do sleep 0.01; done ;;
esac
"""


def submitted(tmp_path: Path, when: list[str], scheduler: str, *, held: bool = True) -> tuple[str, list[str]]:
    """The words of the submission, and all that Flux was told after it. One of two brokers is enough to begin with."""
    flux = tmp_path / "flux"
    flux.write_text(FLUX)
    flux.chmod(0o755)
    entry = tmp_path / "entry.sh"
    entry.write_text(ENTRY_SCRIPT)
    state = tmp_path / "state"
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SCHEDULER": scheduler, "FLUXOP_JOB": "{}", "FLUXOP_QUORUM": "1",
               "FLUXOP_ROOT": str(state), "HELD": "yes" if held else ""}  # fmt: skip
    (state / "run" / "flux_operator" / "flux").mkdir(parents=True)
    done = subprocess.run(
        ["/bin/sh", str(entry), "job", *when], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "flux.log").read_text().splitlines()
    [at] = [number for number, line in enumerate(said) if line.startswith("job submit")]
    return said[at], said[at + 1 :]


def test_a_job_of_all_pods_waits_in_fluxs_own_queue(tmp_path: Path) -> None:
    words, _ = submitted(tmp_path, ["now", "2"], "sched-simple", held=False)
    assert words.endswith("--urgency=16")


@pytest.mark.parametrize(
    ("when", "scheduler", "looks"), [(["held"], "sched-simple", 1), (["now", "2"], "sched-fluxion-qmanager", 2)]
)
def test_where_the_queue_would_refuse_it_the_job_is_held(
    tmp_path: Path, when: list[str], scheduler: str, looks: int
) -> None:
    """Fluxion calls a job unsatisfiable that needs brokers which have not come, however few the spec begins with."""
    words, after = submitted(tmp_path, when, scheduler)
    assert words.endswith("--urgency=0")
    assert after[: after.index("job urgency f1 default")].count("uptime") == looks
