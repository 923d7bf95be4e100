"""What both modes render: the named spec of a run, and the program that its lead broker runs."""

from __future__ import annotations

from executors.config import RunSection
from executors.provision.kubernetes.published import SPEC_ANNOTATION, spec_text
from executors.provision.kubernetes.user import user_of
from executors.provision.package import agent_archive, shell_text
from executors.render import MiniCluster, Program, variables_of_secrets
from executors.spec import MiniClusterSpec

#: Tells an object that this very attempt has made, though its answer was lost, from another client's.
ATTEMPT_ANNOTATION = "flux-operator-executors/attempt"


def minicluster_of(name: str, namespace: str, spec: MiniClusterSpec, attempt: str = "") -> MiniCluster:
    """Returns the named spec of a run, with the annotations of its owner."""
    annotations = {SPEC_ANNOTATION: spec_text(spec), ATTEMPT_ANNOTATION: attempt}
    return MiniCluster(name=name, namespace=namespace, spec=spec, annotations=annotations, user=user_of(spec))


def program_of(run: RunSection, cluster: MiniCluster, agent_directory: str) -> Program:
    """Returns the agent and its arguments. ``agent_directory``: of its socket and state, in the lead's container."""
    return Program(
        agent=agent_archive(),
        arguments=(
            "--directory", agent_directory,
            "--run", cluster.name,
            "--engine", "flux",
            "--idle-timeout", str(run.idle_timeout),
            "--orphan-timeout", str(run.orphan_timeout),
            "--in-pod",
            *(("--pilot", run.pilot) if run.pilot != "off" else ()),
            *(word for name in variables_of_secrets(cluster) for word in ("--without-env", name)),
        ),
        max_lifetime=run.max_lifetime,
        ttl=run.ttl,
        shell_text=shell_text(),
    )  # fmt: skip
