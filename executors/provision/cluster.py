"""What the two ways to a MiniCluster on Kubernetes share: get it or create it, wait for it, lose it, delete it.

Direct mode and operator mode differ in the object that everything else hangs on (the *owner*: a Job, or a MiniCluster
resource) and in what has to be created; both have an Indexed Job of the MiniCluster's name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from executors import flux_version
from executors.config import RunConfig
from executors.errors import ConfigError, EndingError, ExecutorsError, ProvisionError
from executors.kube import Api, ApiError, ClusterAccess, ConflictError, Kind, NotFoundError, connect
from executors.kube.api import EVENTS, JOBS, PODS, kind_of
from executors.provision import diagnosis
from executors.provision.creating import create
from executors.provision.diagnosis import Fatal
from executors.provision.package import agent_archive, shell_text
from executors.provision.picture import Picture
from executors.provision.user import user_of
from executors.provision.waiting import Waiting
from executors.provision.watching import Change, Follower, Listed, Wanted
from executors.render import BROKER_PORT, HASH_ANNOTATION, LABELS, MiniCluster, Program, variables_of_secrets
from executors.spec import MiniClusterSpec, default_document, parse_spec
from executors.transport import Endpoint, PodExecEndpoint

log = logging.getLogger(__name__)

Object = dict[str, Any]

SPEC_ANNOTATION = "flux-operator-executors/spec"
#: Tells an object that this very attempt has made, though its answer was lost, from another client's.
ATTEMPT_ANNOTATION = "flux-operator-executors/attempt"
#: A client that did not create it uses it.
ADOPTED_ANNOTATION = "flux-operator-executors/adopted"
_A_WEEK = 7 * 86400.0
#: Of the 256 KiB that Kubernetes gives all annotations of an object.
_ANNOTATION_LIMIT = 100_000
_HIDDEN = frozenset(["environment", "curveCert"])
#: Seconds to wait for an object that is being deleted, or that we deleted, to be gone.
DELETE_LIMIT = 120.0
#: Brokers that are not there, of which each is explained, and lines of the log of each.
_EXPLAINED = 4
_LAST_WORDS = 3
#: Seconds for an API server that refuses, or is away, to come to its senses.
_RETRY_LIMIT = 20.0


class ClusterProvisioner:
    """See `executors.provision.base.Provisioner`."""

    #: What everything else hangs on.
    owner_kind: Kind
    mode: str
    #: Foreground: the owner is gone when all that hangs on it is.
    deletion_policy = "Foreground"
    #: Seconds for the Job to appear; direct mode makes it itself.
    job_limit = 0.0

    def __init__(self, run_name: str, config: RunConfig, reason: str) -> None:
        self._config = config
        self._reason = reason
        self._api: Api | None = None
        run = config.run
        self._access = ClusterAccess(run.kubeconfig, run.context)
        self._name = run_name
        self._spec: MiniClusterSpec = config.minicluster or parse_spec(default_document())
        self._namespace = ""
        self._uid = ""
        self._attempt = os.urandom(8).hex()
        self._creating = False
        self._created = False
        self._adopted = False
        self._found = False
        self._lead: Object | None = None
        #: The lead's container has started, its pod's state does not say so yet.
        self._early = False
        #: Since when (`time.monotonic`) it is waited for, however often.
        self._began = time.monotonic()
        #: When (`time.monotonic`) a Job that no queue admits begins without.
        self._release_at = float("inf")
        #: Seconds for an agent that is starting.
        self._patience = run.start_timeout or 3600.0

    # -- for the two kinds

    def _agent_directory(self) -> str:
        """Where the agent's socket and state are, in the lead broker's container."""
        raise NotImplementedError

    def _size_change(self, size: int) -> Object:
        raise NotImplementedError

    def _relay(self, patience: float) -> list[str]:
        """The argv of the agent's relay in that container; ``patience``: seconds for an agent that is starting."""
        raise NotImplementedError

    def _manifests(self) -> list[Object]:
        """The objects to create; the owner is one of them."""
        raise NotImplementedError

    def _create_before(self) -> None:
        """Create what must be there before the owner."""

    def _refused(self, err: NotFoundError) -> ProvisionError:
        """What it means that the owner's kind or namespace is not found."""
        return ProvisionError(f"the namespace {self._namespace} is not there, or not yours: {err}")

    def _complete(self, owner: Object) -> None:
        """Create whatever the owner still lacks, and let it start. Idempotent."""
        raise NotImplementedError

    # -- Provisioner

    def describe(self) -> str:
        size = f"{self._spec.size} pod{'s' if self._spec.size > 1 else ''}"
        what = "the run's own MiniCluster, running already" if self._adopted else f"a MiniCluster of {size}"
        return f"provisioner: {self.mode} ({self._reason}): {what}, {self._namespace}/{self._name} at {self.api.server}"

    def inherits_environment(self) -> bool:
        return False

    @property
    def api(self) -> Api:
        """Raises ConfigError when no cluster is known."""
        if self._api is None:
            self._api = connect(self._access)
            self._namespace = self._config.run.namespace or self._api.namespace
        return self._api

    def ensure(self) -> None:
        self._began = time.monotonic()
        if self._lead is not None:
            # It was ready and took us no more: it ends, or has ended.
            self._wait_ended()
            self._lead = None
        deadline = time.monotonic() + DELETE_LIMIT
        while True:
            owner = self._get_or_create()
            if owner is not None:
                self._uid = owner["metadata"]["uid"]
                self._complete(owner)
                return
            if time.monotonic() > deadline:
                raise ProvisionError(f"{self._where()} is being deleted and is not gone after {DELETE_LIMIT:g} s")

    def find(self, patience: float) -> None:
        self._began = time.monotonic()
        try:
            owner = self.api.get(self.owner_kind, self._namespace, self._name)
        except NotFoundError:
            raise ProvisionError(f"there is no MiniCluster {self._namespace}/{self._name} (mode {self.mode})") from None
        self._uid = owner["metadata"]["uid"]
        over = self._over(owner)
        if over is not None or owner["metadata"].get("deletionTimestamp"):
            raise ProvisionError(f"{self._where()} has ended: {over or 'it is being deleted'}")
        self._adopted = self._found = True
        self._patience = patience
        given = owner["metadata"].get("annotations", {}).get(SPEC_ANNOTATION)
        if given is not None:
            self._spec = parse_spec(json.loads(given))

    def size(self) -> tuple[int, int]:
        """How many pods are wanted, and how many there may be at most. After `find` or `ensure`."""
        job = self.api.get(JOBS, self._namespace, self._name)
        if self._uid != job["metadata"]["uid"] and not diagnosis.is_owned_by(job, self._uid):
            raise ProvisionError(f"{self._where()} has no Job yet")
        return int(job["spec"]["completions"]), self._spec.max_size

    def lacks(self, ranks: Collection[int]) -> bool:
        return not set(range(self.size()[0])) <= set(ranks)

    def unconnected(self, ranks: Collection[int]) -> list[str]:
        picture = Picture(self._container(), self._uid, self._spec.size)
        picture.take_job(self.api.get(JOBS, self._namespace, self._name))
        for pod in self.api.list(PODS, self._namespace, labels=f"job-name={self._name}")["items"]:
            picture.take_pod(pod)
        for event in self.api.list(EVENTS, self._namespace)["items"]:
            picture.take_event(event)
        missing = sorted(set(range(picture.wanted)) - set(ranks))
        if not missing:
            return []
        lines = [
            f"{len(missing)} of {picture.wanted} brokers of {self._namespace}/{self._name} are not connected to the "
            "lead; jobs that need them wait:"
        ]
        for rank in missing[:_EXPLAINED]:
            lines += [f"  rank {rank}: {line}" for line in self._why_unconnected(picture, rank)]
        if len(missing) > _EXPLAINED:
            lines.append(f"  and rank {', '.join(map(str, missing[_EXPLAINED:]))}")
        return lines

    def losses(self) -> dict[str, str]:
        found = {}
        for pod in self.api.list(PODS, self._namespace, labels=f"job-name={self._name}", once=True)["items"]:
            ended = diagnosis.broker_end(pod, self._container())
            rank = diagnosis.index_of(pod)
            if ended is not None and rank != 0:
                found[diagnosis.uid_of(pod)] = f"the broker of rank {rank} was lost: {ended}"
        return found

    def _why_unconnected(self, picture: Picture, rank: int) -> list[str]:
        pod, keeps = picture.of_rank(rank)
        if pod is None or keeps is not None:
            return [keeps.reason if keeps is not None else "there is no pod"]
        name = diagnosis.name_of(pod)
        said = list(dict.fromkeys(self._log_lines(name)))[-_LAST_WORDS:] or [f"the log of {name} says nothing"]
        cure = f"can it resolve the lead's name, and reach its port {BROKER_PORT} (NetworkPolicy)?"
        return [f"pod {name} runs, but its broker does not reach the lead's; {cure}", *said]

    def resize(self, size: int) -> None:
        """Ask for another number of pods. Raises ConfigError for one that brokers have no place for."""
        if not 1 <= size <= self._spec.max_size:
            limit = f"from 1 to {self._spec.max_size}, the minicluster.maxSize of its start"
            raise ConfigError([f"size: {size} is not {limit}"])
        self.api.patch(self.owner_kind, self._namespace, self._name, self._size_change(size))

    def wait_ready(self, announce: Callable[[str], None] = log.info) -> Endpoint:
        run = self._config.run
        picture = Picture(self._container(), self._uid, self._spec.size)
        limit = self._patience if self._found else run.start_timeout
        # Once: where it was too early, the pods' states say why.
        hurry = self._created and not self._early
        wait = Waiting(limit, run.schedule_timeout, self.job_limit, announce, self._began)
        with Follower(self.api, self._namespace, self._of_interest()) as follower:
            for change in follower.changes(lambda: min(wait.next_look(), self._release_at)):
                finding = self._take(picture, change, wait) or picture.end()
                if finding is not None and self._adopted and not self._found:
                    # Another client's, which has just ended: nothing is wrong, it is only too late.
                    raise EndingError(finding.reason)
                self._release_unqueued(picture, announce)
                up = picture.up(by_events=hurry) if finding is None and picture.held is None else []
                needed = self._needed(picture.wanted)
                if len(up) >= needed and any(diagnosis.index_of(pod) == 0 for pod in up):
                    return self._endpoint(up)
                try:
                    wait.look([finding, *picture.findings(lenient=self._adopted, needed=needed)])
                except ProvisionError as err:
                    raise self._failed(str(err), picture) from None
        raise AssertionError("the changes never end by themselves")

    def _of_interest(self) -> list[Wanted]:
        return [
            Wanted(PODS, labels=f"job-name={self._name}"),
            Wanted(EVENTS),
            Wanted(JOBS, fields=f"metadata.name={self._name}"),
        ]

    def _take(self, picture: Picture, change: Change | Listed | None, wait: Waiting) -> Fatal | None:
        """Note a change; what it says of the owner's own end."""
        if not isinstance(change, Change):
            gone = isinstance(change, Listed) and change.kind is JOBS and not change.count and not self.job_limit
            return Fatal(f"{self._where()} is gone") if gone else None
        if change.kind is PODS:
            picture.take_pod(change.object, deleted=change.deleted)
        elif change.kind is EVENTS:
            picture.take_event(change.object, deleted=change.deleted)
        elif self.owner_kind is not JOBS and not diagnosis.is_owned_by(change.object, self._uid):
            # Of a MiniCluster of this name that is being removed; then comes ours.
            wait.job_is_awaited(there=not change.deleted)
        elif change.deleted:
            return Fatal(f"{self._where()} was deleted by somebody else while it started")
        else:
            wait.job_is_awaited(there=True)
            picture.take_job(change.object)
        return None

    def _release_unqueued(self, picture: Picture, announce: Callable[[str], None]) -> None:
        """For the kind that may begin a Job which is meant for a queue that is not there."""

    def early(self) -> bool:
        return self._early or self._lead_is_replaced()

    def _lead_is_replaced(self) -> bool:
        """Whether the lead's pod goes, or went, and the Job makes another: that one had served nobody yet."""
        if self._lead is None:
            return False
        try:
            owner = self.api.get(self.owner_kind, self._namespace, self._name)
            if owner["metadata"]["uid"] != self._uid or diagnosis.is_leaving(owner) or self._over(owner) is not None:
                return False
            try:
                pod = self.api.get(PODS, self._namespace, diagnosis.name_of(self._lead))
            except NotFoundError:
                return True
        except ExecutorsError as err:  # the API server is away: the stream's own error is the one to be told
            log.debug("cannot tell whether the lead is being replaced: %s", err)
            return False
        return diagnosis.is_leaving(pod) or diagnosis.over(pod)

    def patience(self) -> float:
        # So long it waits for us; an API server that is being upgraded, or a laptop's network, may take minutes.
        return self._config.run.orphan_timeout or self._config.run.max_lifetime or _A_WEEK

    def in_use(self) -> str | None:
        return None  # nothing of it is seen from here

    def adopted(self) -> bool:
        return self._adopted

    def gone(self) -> str | None:
        try:
            owner = self.api.get(self.owner_kind, self._namespace, self._name, once=True)
            if owner["metadata"]["uid"] != self._uid:
                return f"{self._where()} was replaced by another one of the same name"
            if owner["metadata"].get("deletionTimestamp"):
                return f"{self._where()} is being deleted"
            return self._lead_gone()
        except NotFoundError:
            return f"{self._where()} was deleted"
        except ExecutorsError as err:  # the API server is away, or lets us see nothing: that says nothing of the agent
            log.debug("cannot tell whether the MiniCluster is there: %s", err)
            return None

    def detach(self) -> None:
        if self._api is not None:
            self._api.close()

    def abandon(self) -> None:
        if self._creating and not self._created:
            self._find_lost_creation()
        if self._created:
            self._end(self._delete_unless_adopted)
        else:
            self.detach()

    def _delete_unless_adopted(self) -> None:
        """Raises ConflictError when another client uses it."""
        while True:
            owner = self.api.get(self.owner_kind, self._namespace, self._name)
            if ADOPTED_ANNOTATION in owner["metadata"].get("annotations", {}):
                raise ConflictError(409, "Adopted", f"{self._where()} is left to another client, which uses it")
            try:
                self._delete_owner(self._uid, owner["metadata"]["resourceVersion"])
                return
            except ConflictError as err:
                if owner["metadata"]["uid"] != self._uid:
                    raise
                log.debug("changed since it was read: %s", err)

    def _find_lost_creation(self) -> None:
        """The answer to the creation may have been lost, or a signal have come before it was noted."""
        try:
            owner = self.api.get(self.owner_kind, self._namespace, self._name)
        except ExecutorsError as err:  # not there, as a rule; else `reap` ends it
            log.debug("nothing was created: %s", err)
            return
        if owner["metadata"].get("annotations", {}).get(ATTEMPT_ANNOTATION) == self._attempt:
            self._uid, self._created = owner["metadata"]["uid"], True

    def delete(self) -> None:
        self._end(lambda: self._delete_owner(self._uid))

    def _end(self, delete: Callable[[], None]) -> None:
        try:
            self._patiently(delete)
        except NotFoundError:
            pass  # somebody did so before
        except ConflictError as err:  # it is another one's by now, of the same name or the very same
            log.debug("not deleted: %s", err)
            self.detach()
            return
        except ExecutorsError as err:
            log.warning("%s could not be deleted, and ends by its own time-outs: %s", self._where(), err)
            self.detach()
            return
        try:
            if not self._wait_gone(DELETE_LIMIT):
                log.warning("%s is being deleted, but is not gone after %g s", self._where(), DELETE_LIMIT)
        except ExecutorsError as err:
            log.warning("%s is being deleted; whether it is gone cannot be seen: %s", self._where(), err)
        self.detach()

    def _delete_owner(self, uid: str, version: str = "") -> None:
        """Only that very object, and with ``version`` only as it was then."""
        kind, policy = self.owner_kind, self.deletion_policy
        self.api.delete(kind, self._namespace, self._name, uid=uid, version=version, policy=policy)

    def _patiently(self, call: Callable[[], None]) -> None:
        """Try again what an API server that was just restarted refuses."""
        import tenacity

        tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda err: isinstance(err, ApiError) and err.transient),
            stop=tenacity.stop_after_delay(_RETRY_LIMIT),
            wait=tenacity.wait_exponential_jitter(multiplier=0.1, max=1.0, jitter=0.1),
            reraise=True,
        )(call)

    # -- creating

    def _minicluster(self) -> MiniCluster:
        spec = json.dumps(_without_values(self._spec.public_document), sort_keys=True)
        return MiniCluster(
            name=self._name,
            namespace=self._namespace,
            spec=self._spec,
            annotations={
                # For the message that tells what differs, should the same run be asked for with another spec.
                SPEC_ANNOTATION: spec if len(spec) < _ANNOTATION_LIMIT else "{}",
                ATTEMPT_ANNOTATION: self._attempt,
            },
            user=user_of(self._spec),
        )

    def _program(self) -> Program:
        run = self._config.run
        return Program(
            agent=agent_archive(),
            arguments=(
                "--directory", self._agent_directory(),
                "--run", self._name,
                "--engine", "flux",
                "--idle-timeout", str(run.idle_timeout),
                "--orphan-timeout", str(run.orphan_timeout),
                "--in-pod",
                *(word for name in variables_of_secrets(self._minicluster()) for word in ("--without-env", name)),
            ),
            max_lifetime=run.max_lifetime,
            ttl=run.ttl,
            shell_text=shell_text(),
        )  # fmt: skip

    def _create(self, kind: Kind, manifest: Object, *, strict: bool = False) -> Object:
        limit = self._config.run.schedule_timeout
        made: Object = create(self.api, kind, self._namespace, manifest, limit, strict=strict)
        return made

    def _get_or_create(self) -> Object | None:
        """The owner, ours or made just now; None when one that was in the way has gone."""
        api = self.api
        try:
            self._creating = True
            self._attempt = os.urandom(8).hex()
            self._create_before()
            # Of a podPatch, Kubernetes would leave out a field that it does not know.
            strict = bool(self._config.run.pod_patch)
            owner = self._create(self.owner_kind, self._owner_manifest(), strict=strict)
        except ConflictError:
            pass
        except NotFoundError as err:
            raise self._refused(err) from err
        else:
            self._created, self._adopted = True, False
            return owner
        try:
            owner = api.get(self.owner_kind, self._namespace, self._name)
        except NotFoundError:
            return None
        metadata = owner["metadata"]
        mine = metadata.get("annotations", {}).get(ATTEMPT_ANNOTATION) == self._attempt
        if mine and not metadata.get("deletionTimestamp"):
            # This very attempt has made it, and the answer was lost.
            self._created, self._adopted = True, False
            return owner
        if not LABELS.items() <= metadata.get("labels", {}).items():
            raise ProvisionError(f"{self._where()} was not made by this program; remove it, or name another run")
        if metadata.get("deletionTimestamp"):
            self._uid = metadata["uid"]
            self._wait_gone(DELETE_LIMIT)
            return None
        if self._over(owner) is not None:  # of an earlier time, kept until its ttl
            self._uid = metadata["uid"]
            self._delete_owner(self._uid)
            self._wait_gone(DELETE_LIMIT)
            return None
        self._refuse_other_spec(metadata.get("annotations", {}))
        return self._adopt()

    def _adopt(self) -> Object | None:
        """Mark the owner as in use by more than its creator, who would else end it if he failed to start it."""
        change = {"metadata": {"annotations": {ADOPTED_ANNOTATION: "true"}}}
        try:
            owner = self.api.patch(self.owner_kind, self._namespace, self._name, change)
        except NotFoundError:
            return None
        if owner["metadata"].get("deletionTimestamp"):
            return None  # the next round waits until it is gone
        self._created, self._adopted = False, True
        return owner

    def _owner_manifest(self) -> Object:
        return next(one for one in self._manifests() if kind_of(one) is self.owner_kind)

    def _refuse_other_spec(self, annotations: Mapping[str, str]) -> None:
        if annotations.get(HASH_ANNOTATION) == self._owner_manifest()["metadata"]["annotations"][HASH_ANNOTATION]:
            return
        there = json.loads(annotations.get(SPEC_ANNOTATION, "{}"))
        differences = list(_differences(there, _without_values(self._spec.public_document)))
        raise ConfigError(
            [
                f"minicluster.{path}: {mine!r} is asked for, but {theirs!r} is running"
                for path, theirs, mine in differences
            ]
            or [
                "run: its limits, its podPatch, or the version of this program, are not those with which it was created"
            ],
            f"{self._where()} runs with another spec; use that, or end it (flux-minicluster down) first",
        )

    # -- waiting

    def _needed(self, wanted: int) -> int:
        """How many brokers, the lead's among them, work is to wait for."""
        return 1 if self._found else min(self._spec.min_size or self._spec.size, wanted)

    def _endpoint(self, up: list[Object]) -> Endpoint:
        self._lead = next(pod for pod in up if diagnosis.index_of(pod) == 0)
        self._early = not diagnosis.is_running(self._lead, self._container())
        return PodExecEndpoint(
            access=self._access,
            namespace=self._namespace,
            pod=diagnosis.name_of(self._lead),
            container=self._container(),
            argv=tuple(self._relay(self._patience)),
        )

    def _container(self) -> str:
        return self._spec.flux_container.name or self._name

    def _failed(self, reason: str, picture: Picture) -> ProvisionError:
        lines = [f"the MiniCluster {self._namespace}/{self._name} cannot start: {reason}"]
        lines += [f"  event: {line}" for line in diagnosis.lines_of(picture.events)[-5:]]
        for pod in picture.pods:
            if diagnosis.over(pod) or diagnosis.broker_end(pod, self._container()) is not None:
                logged = self._log_lines(diagnosis.name_of(pod))
                lines += logged
                old = self._too_old(logged)
                lines += [f"  {old}"] if old is not None else []
                break
        return ProvisionError("\n".join(lines))

    def _too_old(self, logged: list[str]) -> str | None:
        """What the entry script's last words on a broker that failed say of its version."""
        said = next((line.partition("this is Flux ")[2] for line in logged if "this is Flux " in line), "")
        return flux_version.problem(said, self._spec, self.mode)

    def _log_lines(self, pod: str) -> list[str]:
        try:
            text = self.api.log(self._namespace, pod, container=self._container(), lines=10)
        except ExecutorsError as err:  # a help with the error, not a second error
            log.debug("no log of %s: %s", pod, err)
            return []
        return [f"  log of {pod}: {line}" for line in text.splitlines()]

    def _lead_gone(self) -> str | None:
        if self._lead is None:
            return None
        name = diagnosis.name_of(self._lead)
        try:
            pod = self.api.get(PODS, self._namespace, name, once=True)
        except NotFoundError:
            return f"the lead broker's pod {name} is gone"
        ended = diagnosis.broker_end(pod, self._container())
        if ended is not None:
            return "\n".join([f"the lead broker is lost: {ended}", *self._log_lines(name)])
        if diagnosis.is_leaving(pod):
            return f"the lead broker's pod {name} is being deleted"
        if diagnosis.over(pod):
            return f"the lead broker's pod {name} has ended"
        return None

    def _over(self, owner: Object) -> str | None:
        """Why an owner that is there will do no more work."""
        raise NotImplementedError

    def _job_over(self, job: Object) -> str | None:
        """The same of its Job: that is over, or the lead broker is, beside whose container another may run for ever."""
        finding = diagnosis.of_job(job)
        if isinstance(finding, Fatal):
            return finding.reason
        pods = self.api.list(PODS, self._namespace, labels=f"job-name={self._name}")["items"]
        mine = [pod for pod in pods if diagnosis.is_owned_by(pod, job["metadata"]["uid"])]
        return diagnosis.lead_end(mine, self._container())

    def _wait_ended(self) -> None:
        """Wait until the instance that took us no more is over, or gone."""
        deadline = time.monotonic() + DELETE_LIMIT
        pods = Wanted(PODS, labels=f"job-name={self._name}")
        owner: Object | None = None
        for kind, found in self._follow([self._wanted_owner(), pods], deadline):
            if kind is not PODS:
                if found is None or found["metadata"]["uid"] != self._uid:
                    return
                owner = found
            if owner is not None and self._over(owner) is not None:
                return

    def _wait_gone(self, limit: float) -> bool:
        return any(
            found is None or found["metadata"]["uid"] != self._uid
            for _, found in self._follow([self._wanted_owner()], time.monotonic() + limit)
        )

    def _wanted_owner(self) -> Wanted:
        return Wanted(self.owner_kind, fields=f"metadata.name={self._name}")

    def _follow(self, wanted: list[Wanted], deadline: float) -> Iterator[tuple[Kind, Object | None]]:
        """Objects each time that they change; None once there is none of a kind; until the deadline."""
        with Follower(self.api, self._namespace, wanted) as follower:
            for change in follower.changes(lambda: deadline):
                if change is None:
                    return
                if isinstance(change, Change):
                    yield change.kind, None if change.deleted else change.object
                elif not change.count:
                    yield change.kind, None

    def _where(self) -> str:
        return f"the MiniCluster {self._namespace}/{self._name}"


def _without_values(value: Any, hidden: bool = False) -> Any:
    """A spec with a digest in place of what may be secret: environments, and the brokers' certificate."""
    if isinstance(value, Mapping):
        return {name: _without_values(one, hidden or name in _HIDDEN) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_values(one, hidden) for one in value]
    if not hidden:
        return value
    return f"sha256:{hashlib.sha256(str(value).encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _differences(theirs: Any, mine: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        for name in sorted({*theirs, *mine}):
            yield from _differences(theirs.get(name), mine.get(name), f"{path}.{name}" if path else str(name))
    elif isinstance(theirs, list) and isinstance(mine, list) and len(theirs) == len(mine):
        for at, (one, other) in enumerate(zip(theirs, mine, strict=True)):
            yield from _differences(one, other, f"{path}[{at}]")
    elif theirs != mine:
        yield path, theirs, mine
