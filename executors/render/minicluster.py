"""What is rendered: a named spec, and the program that its lead broker runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from executors.spec import MiniClusterSpec


@dataclass(frozen=True)
class PodUser:
    """As whom pods run."""

    uid: int
    gid: int
    #: Supplemental ones.
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Profile:
    """For whom a MiniCluster is rendered: our run (direct mode), or a resource's user (our Flux Operator), who
    relies on what upstream's operator gives: names, labels, tasks, files, and the image's own user."""

    #: Whether it is a MiniCluster resource.
    of_resource: bool = False
    #: Whether pods get what the restricted pod security standard asks for, where the spec says nothing of it.
    restricted: bool = True


#: A run's own, of direct mode.
OF_RUN = Profile()


@dataclass(frozen=True)
class MiniCluster:
    """A spec with a name in a namespace. ``labels`` go on every object and pod (cost reports group by them)."""

    name: str
    namespace: str
    spec: MiniClusterSpec
    labels: Mapping[str, str] = field(default_factory=dict)
    #: On the owner of all objects only: raw run ids and the like, never a secret.
    annotations: Mapping[str, str] = field(default_factory=dict)
    #: At the end of the names of what the owner owns: what an earlier owner of the same name has left, and is being
    #: removed, is then neither in the way nor taken for this one's.
    token: str = ""
    #: Of pods whose spec names none; None: `executors.render.security.DEFAULT_UID`.
    user: PodUser | None = None
    profile: Profile = OF_RUN


@dataclass(frozen=True)
class Program:
    """A run's agent, which the lead broker runs as its initial program. Times are seconds; 0 turns a limit off."""

    #: The zipapp.
    agent: bytes = field(repr=False)
    #: What follows ``supervise`` on its command line.
    arguments: tuple[str, ...]
    #: Kubernetes ends the MiniCluster then.
    max_lifetime: float
    #: Kubernetes removes what is left so long after the end.
    ttl: float
    #: What Flux's shell does for a job, on every node (`executors.agent.flux.shell`); "": nothing.
    shell_text: str = field(default="", repr=False)
