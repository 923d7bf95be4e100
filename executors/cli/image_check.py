"""What an image brings, seen in a pod of it: Flux, and Snakemake for nested steps."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

from executors import flux_version
from executors.config import RunConfig
from executors.errors import ExecutorsError
from executors.job import JobRequest
from executors.names import RunId
from executors.session import Session, open_session
from executors.spec import default_document, parse_spec

#: Of the jobs that look; seconds.
_LIMIT = 120.0
#: What the main Snakemake (see pyproject.toml) says to a nested one, that one must understand.
SNAKEMAKE_NEEDS = (9, 20)
_ASK_SNAKEMAKE = "from importlib.metadata import version; print(version('snakemake'))"


@dataclass(frozen=True)
class CheckResult:
    """One precondition. ``ok`` None: it could not be told."""

    what: str
    ok: bool | None
    said: str
    cure: str = ""


def examine_image(config: RunConfig) -> Iterator[CheckResult]:
    """Make a MiniCluster of one pod of the config's kind, ask in it, and end it."""
    spec = config.minicluster or parse_spec(default_document())
    one = parse_spec({**spec.document, "size": 1, "minSize": 1, "maxSize": 1})
    provisioner = config.run.provisioner if config.run.provisioner in ("direct", "operator") else "direct"
    small = replace(config, minicluster=one, run=replace(config.run, provisioner=provisioner))
    image = spec.flux_container.image
    try:
        with open_session(RunId("doctor", uuid.uuid4().hex[:8]), small, environ=os.environ) as session:
            problem = flux_version.problem(session.hello.engine_version, one, provisioner)
            yield CheckResult(
                "image: Flux", problem is None, problem or f"{image} contains Flux {session.hello.engine_version}"
            )
            yield _snakemake(session, image)
    except (ExecutorsError, TimeoutError) as err:
        yield CheckResult("image: Flux", False, str(err), "see the pod's message above; the image must contain Flux")


def _snakemake(session: Session, image: str) -> CheckResult:
    """Without it only shell rules on shared files can run, which is all that some need."""
    [handle] = session.submit([JobRequest(argv=["python3", "-c", _ASK_SNAKEMAKE])])
    result = handle.result(_LIMIT)
    needed = ".".join(map(str, SNAKEMAKE_NEEDS))
    cure = f"install Snakemake {needed} or newer in the image, for its python3; shell rules on shared files need none"
    if not result.ok:
        return CheckResult("image: Snakemake", None, f"{image} contains none, which nested steps need", cure)
    said = b"".join(handle.output()).decode("utf-8", "replace").strip()
    found = flux_version.parse_version(said)
    good = found is not None and found >= SNAKEMAKE_NEEDS
    text = f"{image} contains {said}" + ("" if good else f", too old for nested steps: {needed} or newer is needed")
    return CheckResult("image: Snakemake", good, text, "" if good else cure)
