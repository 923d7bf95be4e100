"""The text of a job that Flux is given, and the tag in it by which the job is known again. Pure, but for secrets.

Keys survive the agent: each job carries a *tag*, ``attributes.user.fxo`` = {run, key, digest, name, ...}, which the
redacted jobspec of Flux's journal keeps.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, NamedTuple, Optional

from ..engine import Submission
from ..environment import bad_names
from ..wire import EPOCH_VARIABLE
from . import meter, secrets, shell
from .templates import without_templates

_USER = "fxo"


class NodeFiles(NamedTuple):
    """Which files of the agent the jobs of this instance find on their nodes."""

    #: For output that goes to no file of the job's; "" where not all nodes share it. Flux keeps it then.
    spool: str = ""
    #: The text for Flux's shell (see `shell`); "" where it is not on every node.
    shell_text: str = ""
    #: The agent's directory is on the lead broker's node only, though this program is at the same path on every node.
    are_local_to_lead: bool = False


class JobspecWriter:
    """Writes jobspecs of one run. Called in the reactor's thread."""

    def __init__(self, run: str, directory: str, epoch: str, usage_path: str) -> None:
        """``directory``: for secrets; ``epoch``: the value of `wire.EPOCH_VARIABLE`, "" for none; ``usage_path``: the
        file that meters write to, "" where there are none.
        """
        #: Known when Flux has been asked where it runs.
        self.node_files = NodeFiles()
        self._run = run
        self._directory = directory
        self._epoch = epoch
        self._usage_path = usage_path
        self._secrets = 0
        #: A text that no job can hold, since nobody can guess it.
        self._placeholder = os.urandom(16).hex()

    def write(self, submission: Submission, files: List[str]) -> str:
        """The jobspec as text. ``files`` gets each file made for the job; a caller that drops the job removes them."""
        spec = submission.jobspec
        spool = self.node_files.spool
        tag: Dict[str, Any] = {
            "run": self._run,
            "key": submission.key,
            "digest": submission.digest,
            "name": submission.name,
        }
        spec["attributes"].setdefault("user", {})[_USER] = tag
        tag["tasks"] = task_count(spec)
        task = spec["tasks"][0]
        if submission.measure and self._usage_path:
            task["command"] = meter.with_meter(task["command"], self._usage_path)
        shared, secret_env = submission.environment, submission.secret_env
        if shared is not None:
            shared, not_text = shared.halves()
            # As a secret, by a shell, which takes names of its own kind only (the client has said so).
            secret_env = {**{k: v for k, v in not_text.items() if not bad_names([k])}, **(secret_env or {})}
        base = self._write_secrets(secret_env, tag, task, files) if secret_env else None
        if self.node_files.shell_text:
            ours = base if spool else None
            if shell.prepare(spec, tag["tasks"], self.node_files.shell_text, spool, ours) and spool:
                tag["spooled"] = True
        task["command"] = without_templates(task["command"])
        if self._epoch:
            # If the broker is killed, its job shells go and leave the tasks behind, with nothing else to know them by.
            values = shared.values if shared is not None else spec["attributes"]["system"].setdefault("environment", {})
            values[EPOCH_VARIABLE] = self._epoch
        if shared is None:
            return json.dumps(spec)
        # The environment is most of a jobspec, and jobs share it: encode it once, and put it where it belongs.
        spec["attributes"]["system"]["environment"] = self._placeholder
        return json.dumps(spec).replace('"%s"' % self._placeholder, shared.text(), 1)

    def _write_secrets(
        self, secret_env: Dict[str, str], tag: Dict[str, Any], task: Dict[str, Any], files: List[str]
    ) -> str:
        """Put a secret environment into files, and what reads them before the task; the base of the files' names."""
        self._secrets += 1
        tag["secret"] = name = "env-%d-%d-%s" % (os.getpid(), self._secrets, os.urandom(16).hex())
        base = os.path.join(self._directory, name)
        by_shell = not self.node_files.spool and secrets.a_shell_takes(secret_env)
        secrets.write_secrets(base, secret_env, tag["tasks"], files, by_shell)
        if not self.node_files.spool:
            bring = secrets.with_sent_secrets if self.node_files.are_local_to_lead else secrets.with_secrets
            task["command"] = bring(task["command"], base, by_shell)
        return base


def tag_of(jobspec: Any, run: str) -> Optional[Dict[str, Any]]:
    """The tag in a jobspec of the journal, or None for a job of another run or of somebody else."""
    try:
        tag: Dict[str, Any] = jobspec["attributes"]["user"][_USER]
        return tag if tag["run"] == run else None
    except (KeyError, TypeError):
        return None


def sentinel() -> str:
    """A job without a tag, which is submitted only to see that the journal has come so far (see `engine`)."""
    return json.dumps({
        "version": 1,
        "resources": [{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}],
        "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 1, "cwd": "/", "environment": {}, "job": {"name": "fxo-sentinel"}}},
    })  # fmt: skip


def task_count(spec: Dict[str, Any]) -> int:
    """Tasks of a jobspec (RFC 14)."""
    count = spec["tasks"][0].get("count", {})
    if "total" in count:
        return int(count["total"])
    slots = 1
    for resource in spec["resources"]:
        while resource["type"] != "core":
            slots *= int(resource["count"])
            if resource["type"] == "slot":
                break
            resource = resource["with"][0]
    return slots * int(count.get("per_slot", 1))
