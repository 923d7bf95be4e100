"""A rendered MiniCluster on this machine without Kubernetes: its containers' own commands, one process tree per index.

The files' places become directories of the test, the brokers' TCP endpoints become sockets there, and each broker is
told its host name; everything else is as it was rendered.
"""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from executors.provision.kubernetes.certificate import make_certificate
from executors.render import MiniCluster, Profile, Program, render_direct, render_operated
from executors.render.places import MOUNTED, UNMOUNTED
from executors.spec import parse_spec

NAME = "mc"
LIMIT = 60.0


def spec_of(command: str, **more: Any) -> dict[str, Any]:
    """A spec of two pods that have Flux; ``more`` are keys of the spec, ``container`` those of its container."""
    container = {"image": "any", "command": command, **more.pop("container", {})}
    flux = {"container": {"disable": True}, **more.pop("flux", {})}
    return {"size": 2, "flux": flux, "containers": [container], **more}


class Pods:
    """Start indices, one process each; `close` leaves nothing behind. ``resource``: as our Flux Operator makes them."""

    def __init__(
        self, root: Path, document: Mapping[str, Any], program: Program | None = None, *, resource: bool = False
    ) -> None:
        self.root = root
        cluster = MiniCluster(NAME, "ns", parse_spec(document), profile=Profile(of_resource=resource))
        certificate = make_certificate(NAME)
        if resource:
            self.manifests = render_operated(cluster, certificate, "u-1")
        else:
            self.manifests = render_direct(cluster, program, certificate)
        [job] = [one for one in self.manifests if one["kind"] == "Job"]
        self.template = job["spec"]["template"]["spec"]
        self._processes: list[subprocess.Popen[str]] = []

    def directory(self, index: int) -> Path:
        return self.root / f"pod-{index}"

    def state(self, index: int) -> Path:
        return self.directory(index) / "state"

    def start(self, index: int, role: int | str = 0, **environ: str) -> subprocess.Popen[str]:
        """Run a container of the pod with this index: the broker's, or another by its name."""
        self.prepare(index)
        containers = {one["name"]: one for one in self.template.get("initContainers", [])}
        container = containers[role] if isinstance(role, str) else self.template["containers"][role]
        argv = [self._placed(word.replace("$$", "$"), index) for word in container["command"]]
        if role == 0:
            argv.insert(argv.index("broker", argv.index("flux")) + 1, f"-Shostname={NAME}-{index}")
        process = subprocess.Popen(
            argv,
            env=self._environment(container, index) | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def prepare(self, index: int) -> None:
        """Make the files of a pod."""
        if not self.directory(index).exists():
            self._write(index)

    def run(self, indices: Iterable[int] = (0, 1), **environ: str) -> list[tuple[int, str, str]]:
        """Start brokers and wait for all: exit code, standard output and error of each."""
        return ended([self.start(index, **environ) for index in indices])

    def probe(self, index: int, kind: str = "livenessProbe") -> int:
        """The exit code of a probe in a running pod."""
        container = self.template["containers"][0]
        argv = [self._placed(word, index) for word in container[kind]["exec"]["command"]]
        return subprocess.run(argv, env=self._environment(container, index), check=False, timeout=LIMIT).returncode

    def close(self) -> None:
        for process in self._processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # what a test wants
            process.communicate()

    def _environment(self, container: Mapping[str, Any], index: int) -> dict[str, str]:
        made = {name: value for name, value in os.environ.items() if not name.startswith("FLUX")}
        for one in container.get("env", []):
            if "value" in one:
                made[one["name"]] = self._placed(one["value"].replace("$$", "$"), index)
            elif "fieldRef" not in one["valueFrom"]:
                [(kind, key)] = one["valueFrom"].items()
                made[one["name"]] = self._value(kind, key["name"], key["key"], index)
        return made | {"JOB_COMPLETION_INDEX": str(index), "FLUXOP_INDEX_FAILURES": "0"}

    def _value(self, kind: str, name: str, key: str, index: int) -> str:
        wanted = {"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"}[kind], name
        [manifest] = [one for one in self.manifests if (one["kind"], one["metadata"]["name"]) == wanted]
        text: str = manifest["data"][key]
        return self._placed(base64.b64decode(text).decode() if wanted[0] == "Secret" else text, index)

    def _write(self, index: int) -> None:
        here = self.directory(index)
        here.mkdir(parents=True)
        if not self.template.get("volumes"):
            return
        for name in ("files", "curve", "state", "view"):
            (here / name).mkdir()
        for manifest in self.manifests:
            if manifest["kind"] == "ConfigMap":
                for name, text in manifest["data"].items():
                    path = here / "files" / name
                    path.write_text(self._placed(text, index))
                    path.chmod(0o555)
                for name, text in manifest.get("binaryData", {}).items():
                    (here / "files" / name).write_bytes(base64.b64decode(text))
            elif manifest["kind"] == "Secret":
                for name, text in manifest["data"].items():
                    (here / "curve" / name).write_bytes(base64.b64decode(text))

    def _placed(self, text: str, index: int) -> str:
        here = self.directory(index)
        for places in (UNMOUNTED, MOUNTED):
            # The longest first: one begins with another.
            for place, name in ((places.state, "state"), (places.secret, "curve"), (places.files, "files")):
                text = text.replace(place, str(here / name))
        text = text.replace("/mnt/flux", str(here / "view")).replace("/etc/hosts", str(here / "hosts"))
        if text == UNMOUNTED.root:
            return ""  # of the variable: the script's own places are replaced above
        for address in ("tcp://*:%p", f"tcp://%h.{NAME}:%p"):
            text = text.replace(address, f"ipc://{self.root}/%h")
        return text


def ended(processes: Iterable[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    found = []
    for process in processes:
        out, err = process.communicate(timeout=LIMIT)
        found.append((process.returncode, out, err))
    return found


def until(condition: Callable[[], Any], limit: float = 60.0, pause: float = 0.05) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(pause)  # nothing of what is waited for can tell


#: Pods of a MiniCluster of its document, by the fixture `pods`.
MakePods = Callable[..., Pods]
