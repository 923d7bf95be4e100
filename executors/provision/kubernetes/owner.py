"""The owner of a MiniCluster, which all else hangs on: whose it is, and how it is created, adopted and removed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

from executors.errors import ConfigError, ExecutorsError, ProvisionError
from executors.kube import ApiError, ConflictError, NotFoundError
from executors.kube.api import PODS, kind_of
from executors.kube.objects import KubernetesObject
from executors.provision.kubernetes import diagnosis
from executors.provision.kubernetes.mode import Mode
from executors.provision.kubernetes.published import spec_differences
from executors.provision.kubernetes.recipe import ATTEMPT_ANNOTATION
from executors.provision.kubernetes.target import DELETE_LIMIT, Target
from executors.render import HASH_ANNOTATION, LABELS

log = logging.getLogger(__name__)

#: A client that did not create it uses it.
ADOPTED_ANNOTATION = "flux-operator-executors/adopted"
#: Seconds for an API server that refuses, or is away, to come to its senses.
_RETRY_LIMIT = 20.0


class Claim(Enum):
    """Why this client may have a right to the owner."""

    NONE = auto()
    #: A creation was sent; whether it was carried out is not known yet.
    CREATING = auto()
    CREATED = auto()
    #: Another client created it; this one has marked that it uses it.
    ADOPTED = auto()
    #: It was only looked up.
    FOUND = auto()


class Occasion(Enum):
    """Why the owner should go."""

    #: The instance was told to end: it goes, whichever client created it.
    RELEASED = auto()
    #: The start failed: only what this client created goes, unless another one uses it by now.
    ABANDONED = auto()
    #: It is over, kept until its ttl, and in the way of a new one of its name.
    REPLACED = auto()


class Deletion(NamedTuple):
    """The preconditions of a deletion: only that very object and, with ``version``, only as it was when it was read."""

    uid: str
    version: str = ""


@dataclass(frozen=True)
class Ownership:
    """What one client knows of its right to the owner."""

    claim: Claim = Claim.NONE
    #: Of the owner; "" where it is not known.
    uid: str = ""
    #: Of the creation that was sent last.
    attempt: str = ""

    @property
    def is_shared(self) -> bool:
        """Whether the owner existed before this client came."""
        return self.claim in (Claim.ADOPTED, Claim.FOUND)

    def made(self, owner: KubernetesObject) -> bool:
        """Returns whether the last attempt of this client has created that object."""
        return bool(self.attempt) and _annotations(owner).get(ATTEMPT_ANNOTATION) == self.attempt

    def settled(self, owner: KubernetesObject) -> Ownership:
        """Returns the same after a creation without an answer, by what exists under the owner's name now."""
        claim = Claim.CREATED if self.made(owner) else Claim.NONE
        return Ownership(claim, diagnosis.uid_of(owner) if claim is Claim.CREATED else "", self.attempt)

    def deletion(self, occasion: Occasion, owner: KubernetesObject | None = None) -> Deletion | None:
        """May this client delete the owner? Returns the preconditions under which it may; None: it may not.

        ``owner``: as it was just read; a release does without.
        """
        if occasion is Occasion.RELEASED:
            return Deletion(self.uid) if self.claim is Claim.CREATED or self.is_shared else None
        if owner is None:
            return None
        if occasion is Occasion.REPLACED:
            return Deletion(diagnosis.uid_of(owner)) if is_managed(owner) else None
        mine = self.claim is Claim.CREATED and diagnosis.uid_of(owner) == self.uid
        if not mine or ADOPTED_ANNOTATION in _annotations(owner):
            return None
        return Deletion(self.uid, str(owner["metadata"]["resourceVersion"]))


def is_managed(owner: KubernetesObject) -> bool:
    """Returns whether an object was made by this program."""
    return LABELS.items() <= (owner["metadata"].get("labels") or {}).items()


def _annotations(owner: KubernetesObject) -> Mapping[str, str]:
    return owner["metadata"].get("annotations") or {}


class OwnerStore:
    """The owner of one MiniCluster in the cluster, and this client's right to it."""

    def __init__(self, target: Target, mode: Mode) -> None:
        self._target = target
        self._mode = mode
        self.ownership = Ownership()

    # -- get or create

    def find(self) -> KubernetesObject:
        """Returns the owner that is there. Raises ProvisionError where there is none, or its work is over."""
        try:
            owner: KubernetesObject = self._target.get(self._mode.owner_kind)
        except NotFoundError:
            where = f"{self._target.namespace}/{self._target.name}"
            raise ProvisionError(f"there is no MiniCluster {where} (mode {self._mode.name})") from None
        self.ownership = Ownership(Claim.FOUND, diagnosis.uid_of(owner))
        over = self._mode.over(owner)
        if over is not None or diagnosis.is_leaving(owner):
            raise ProvisionError(f"{self._target} has ended: {over or 'it is being deleted'}")
        return owner

    def get_or_create(self) -> KubernetesObject:
        """Returns the owner, created just now or adopted.

        Raises ConfigError where one with another spec runs; ProvisionError where what is in the way does not go, or was
        not made by this program.
        """
        deadline = time.monotonic() + DELETE_LIMIT
        while True:
            owner = self._create() or self._take_existing()
            if owner is not None:
                return owner
            if time.monotonic() > deadline:
                raise ProvisionError(f"{self._target} is being deleted and is not gone after {DELETE_LIMIT:g} s")

    def _create(self) -> KubernetesObject | None:
        """The owner that was created; None: something of its name is there."""
        mode = self._mode
        self.ownership = Ownership(Claim.CREATING, attempt=os.urandom(8).hex())
        try:
            mode.prepare(self.ownership.attempt)
            # Of a podPatch, Kubernetes would leave out a field that it does not know.
            strict = bool(mode.spec.pod_patch)
            return self._created(self._target.create(mode.owner_kind, self._manifest(), strict=strict))
        except ConflictError:
            return None
        except NotFoundError as err:
            raise mode.refused(err) from err

    def _created(self, owner: KubernetesObject) -> KubernetesObject:
        self.ownership = Ownership(Claim.CREATED, diagnosis.uid_of(owner), self.ownership.attempt)
        return owner

    def _take_existing(self) -> KubernetesObject | None:
        """The owner that is there; None when it was in the way and has gone."""
        try:
            owner = self._target.get(self._mode.owner_kind)
        except NotFoundError:
            return None
        uid = diagnosis.uid_of(owner)
        if self.ownership.made(owner) and not diagnosis.is_leaving(owner):
            return self._created(owner)  # the answer was lost
        if not is_managed(owner):
            raise ProvisionError(f"{self._target} was not made by this program; remove it, or name another run")
        if diagnosis.is_leaving(owner):
            self._wait_gone(uid)
            return None
        if self._mode.over(owner) is not None:
            deletion = self.ownership.deletion(Occasion.REPLACED, owner)
            if deletion is not None:
                self._delete(deletion)
            self._wait_gone(uid)
            return None
        self._refuse_other_spec(owner)
        return self._adopt()

    def _adopt(self) -> KubernetesObject | None:
        """Mark the owner as used by another client than its creator, who would else delete it after a failed start."""
        try:
            owner: KubernetesObject = self._target.patch(
                self._mode.owner_kind, {"metadata": {"annotations": {ADOPTED_ANNOTATION: "true"}}}
            )
        except NotFoundError:
            return None
        if diagnosis.is_leaving(owner):
            return None  # the next round waits until it is gone
        self.ownership = Ownership(Claim.ADOPTED, diagnosis.uid_of(owner), self.ownership.attempt)
        return owner

    def _manifest(self) -> dict[str, Any]:
        mode = self._mode
        return next(one for one in mode.manifests(self.ownership.attempt) if kind_of(one) is mode.owner_kind)

    def _refuse_other_spec(self, owner: KubernetesObject) -> None:
        annotations = _annotations(owner)
        if annotations.get(HASH_ANNOTATION) == self._manifest()["metadata"]["annotations"][HASH_ANNOTATION]:
            return
        raise ConfigError(
            spec_differences(annotations, self._mode.spec)
            or ["run: its limits, its podPatch, or the version of this program, differ from those at its creation"],
            f"{self._target} runs with another spec; use that, or end it (flux-minicluster down) first",
        )

    # -- remove

    def abandon(self) -> None:
        """After a failed start: delete the owner that this client has created, unless another one uses it by now.

        Never raises.
        """
        if self.ownership.claim is Claim.CREATING:
            self._settle()
        if self.ownership.claim is Claim.CREATED:
            self._remove(self._delete_abandoned)

    def delete(self) -> None:
        """Delete the owner of an instance that was told to end, and wait until it is gone. Never raises."""
        self._remove(self._delete_released)

    def _settle(self) -> None:
        """The answer to the creation may have been lost, or a signal have come before it was noted."""
        try:
            self.ownership = self.ownership.settled(self._target.get(self._mode.owner_kind))
        except ExecutorsError as err:  # as a rule it does not exist; else `reap` ends it
            log.debug("nothing was created: %s", err)

    def _delete_abandoned(self) -> bool:
        while True:
            owner = self._target.get(self._mode.owner_kind)
            deletion = self.ownership.deletion(Occasion.ABANDONED, owner)
            if deletion is None:
                log.debug("%s is left to another client, which uses it", self._target)
                return False
            try:
                self._delete(deletion)
                return True
            except ConflictError as err:
                log.debug("changed since it was read: %s", err)

    def _delete_released(self) -> bool:
        if not self.ownership.uid:  # `find` could not look
            owner = self._target.get(self._mode.owner_kind)
            self.ownership = Ownership(Claim.FOUND, diagnosis.uid_of(owner))
        deletion = self.ownership.deletion(Occasion.RELEASED)
        if deletion is not None:
            self._delete(deletion)
        return deletion is not None

    def _delete(self, deletion: Deletion) -> None:
        target, mode = self._target, self._mode
        target.api.delete(
            mode.owner_kind, target.namespace, target.name,
            uid=deletion.uid, version=deletion.version, policy=mode.deletion_policy,
        )  # fmt: skip

    def _remove(self, delete: Callable[[], bool]) -> None:
        try:
            if not _patiently(delete):
                return
        except NotFoundError:
            pass  # somebody did so before
        except ConflictError as err:  # it is another one of the same name by now
            log.debug("not deleted: %s", err)
            return
        except ExecutorsError as err:
            log.warning("%s could not be deleted, and ends by its own time-outs: %s", self._target, err)
            return
        try:
            if not self._wait_gone(self.ownership.uid):
                log.warning("%s is being deleted, but is not gone after %g s", self._target, DELETE_LIMIT)
        except ExecutorsError as err:
            log.warning("%s is being deleted; whether it is gone cannot be seen: %s", self._target, err)

    # -- wait

    def wait_ended(self) -> None:
        """Wait until an instance that took this client no more is over or gone, `DELETE_LIMIT` seconds at most."""
        owner: KubernetesObject | None = None
        wanted = [self._target.watched(self._mode.owner_kind), self._target.watched_pods()]
        for kind, found in self._target.follow(wanted, time.monotonic() + DELETE_LIMIT):
            if kind is not PODS:
                if found is None or diagnosis.uid_of(found) != self.ownership.uid:
                    return
                owner = found
            if owner is not None and self._mode.over(owner) is not None:
                return

    def _wait_gone(self, uid: str) -> bool:
        """Whether that owner, and what hung on it, is gone within `DELETE_LIMIT`. Raises ApiError."""
        deadline = time.monotonic() + DELETE_LIMIT
        changes = self._target.follow([self._target.watched(self._mode.owner_kind)], deadline)
        gone = any(found is None or diagnosis.uid_of(found) != uid for _, found in changes)
        return gone and self._mode.dependents_gone(uid, deadline)


def _patiently(call: Callable[[], bool]) -> bool:
    """Try again what an API server that was just restarted refuses."""
    import tenacity

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda err: isinstance(err, ApiError) and err.transient),
        stop=tenacity.stop_after_delay(_RETRY_LIMIT),
        wait=tenacity.wait_exponential_jitter(multiplier=0.1, max=1.0, jitter=0.1),
        reraise=True,
    )(call)
