"""Jobspecs that are checked by the agent are refused in Flux's own words, and Flux starts no program to check them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import executors.agent
from tests.support.environment import environment

_PROGRAM = """
import copy, json, sys
import flux
from agent.engine import EngineError
from agent.flux.sending import Sender

handle = flux.Flux()
good = {"version": 1, "attributes": {"system": {"duration": 0}},
        "resources": [{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}],
        "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}]}

def changed(change):
    spec = copy.deepcopy(good)
    change(spec)
    return json.dumps(spec)

texts = [json.dumps(good), *map(changed, [
    lambda spec: spec.update(version=2),
    lambda spec: spec.update(more=1),
    lambda spec: spec.pop("tasks"),
    lambda spec: spec["resources"][0].update(count=0),
    lambda spec: spec["resources"][0].update({"with": []}),
    lambda spec: spec["resources"][0]["with"][0].update(count="x"),
    lambda spec: spec["tasks"][0].update(command="true"),
    lambda spec: spec["tasks"][0].update(command=[]),
    lambda spec: spec["tasks"][0].update(slot="other"),
    lambda spec: spec["attributes"].update(system=1),
    lambda spec: spec["attributes"]["system"].update(duration=-1),
    lambda spec: spec["attributes"]["system"].update(duration="1h"),
])]

def answers(sender):
    found = []
    for text in texts:
        try:
            future = sender.send(handle, text)
            future.get_id()
            found.append("taken")
        except EngineError as err:
            found.append(str(err))
        except OSError:
            found.append(future.error_string())
    return found

def programs():
    return handle.rpc("job-ingest.stats-get").get()["pipeline"]["validator"]["running"]

ours = Sender()
ours.begin(handle, is_our_own=True)
by_us, before = answers(ours), programs()
theirs = Sender()
theirs.begin(handle, is_our_own=False)
print(json.dumps({"ours": by_us, "theirs": answers(theirs), "programs": [before, programs()]}))
"""


def run(*options: str) -> dict[str, Any]:
    done = subprocess.run(
        ["flux", "start", *options, "flux", "python", "-c", _PROGRAM],
        env={**environment(), "PYTHONPATH": str(Path(executors.agent.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_is_no_jobspec_is_refused_as_flux_refuses_it(need: Callable[[str], None]) -> None:
    need("flux")
    found = run()
    assert found["ours"] == found["theirs"]
    assert found["ours"][0] == "taken" and len(set(found["ours"])) > 8
    assert found["programs"] == [0, 1]


def test_a_check_that_an_instance_is_configured_for_is_its_own(need: Callable[[str], None], tmp_path: Path) -> None:
    need("flux")
    (tmp_path / "ingest.toml").write_text('[ingest.validator]\nplugins = ["jobspec", "feasibility"]\n')
    assert run(f"--config-path={tmp_path}")["programs"][0] == 1
