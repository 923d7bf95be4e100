"""Does what was decided, by the API, and tells the store what came of it, so that the next decision knows."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any

from executors.controller.deciding import (
    UNSEEN,
    Action,
    Create,
    DeleteMiniCluster,
    LabelPod,
    Refusal,
    Resize,
    Told,
    Wish,
)
from executors.controller.names import INDEX_LABEL, MANAGER, SINCE_ANNOTATION, SIZE_ANNOTATION
from executors.controller.reflecting import Take
from executors.controller.store import Key
from executors.kube import Api, ApiError, ConflictError, ForbiddenError, InvalidError, Kind, NotFoundError
from executors.kube.api import EVENTS, JOBS, MINICLUSTERS, PODS, kind_of
from executors.kube.objects import KubernetesObject, MiniCluster, MiniClusterStatus
from executors.provision.kubernetes.diagnosis import is_owned_by
from executors.render import WISH_ANNOTATION
from executors.schema import MINICLUSTER_API_VERSION

log = logging.getLogger(__name__)

Object = dict[str, Any]

#: Characters of an Event's message (the API's own limit is 1,024 bytes).
_EVENT_LIMIT = 1000


#: What the API server says of an object that an admission webhook refuses, with whatever status that chose.
_WEBHOOK = "admission webhook"


class RefusedByServer(Exception):
    """An object that is needed is refused; ``refusal`` says which, and why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Actor:
    """``take(kind, object, deleted)`` and ``take_stranger`` are the store's."""

    def __init__(
        self,
        api: Api,
        take: Take,
        take_stranger: Callable[[Key, Kind[Any], KubernetesObject], None],
    ) -> None:
        self._api = api
        self._take = take
        self._take_stranger = take_stranger

    def do(self, resource: MiniCluster, action: Action) -> bool:
        """False where something is in the way, so that what comes after it is not to be done.

        Raises ApiError for what may succeed later, RefusedByServer for what needs a change.
        """
        namespace = resource["metadata"]["namespace"]
        if isinstance(action, Create):
            return self._create(resource, action.manifest)
        if isinstance(action, Resize):
            change = {
                "metadata": {"uid": action.uid, "annotations": {SIZE_ANNOTATION: str(action.size)}},
                "spec": {"completions": action.size, "parallelism": action.size},
            }
            self._take(JOBS, self._api.patch(JOBS, namespace, resource["metadata"]["name"], change), False)
        elif isinstance(action, Wish):
            annotations = {WISH_ANNOTATION: str(action.size), SINCE_ANNOTATION: action.since}
            change = {"metadata": {"uid": action.uid, "annotations": annotations}}
            try:
                self._take(PODS, self._api.patch(PODS, namespace, action.name, change), False)
            except (NotFoundError, ConflictError) as err:  # it has gone; the next decision is about another lead
                log.debug("%s", err)
        elif isinstance(action, LabelPod):
            self._label(namespace, action)
        elif isinstance(action, DeleteMiniCluster):
            try:
                name = resource["metadata"]["name"]
                self._api.delete(MINICLUSTERS, namespace, name, uid=action.uid, policy="Background")
            except (NotFoundError, ConflictError) as err:  # it has gone, or is another one by now
                log.debug("%s", err)
        return True

    def _create(self, resource: MiniCluster, manifest: Object) -> bool:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        key = resource["metadata"]["namespace"], resource["metadata"]["name"]
        try:
            made = self._api.create(kind, metadata["namespace"], manifest, manager=MANAGER)
        except ConflictError:
            if manifest["kind"] in UNSEEN:
                return True  # our own, by its name
            # Somebody else's, or our own by a request whose answer was lost: the next decision tells.
            try:
                made = self._api.get(kind, metadata["namespace"], metadata["name"])
            except NotFoundError as err:
                raise ApiError(409, "", f"the {manifest['kind']} {metadata['name']} is being deleted") from err
            if not is_owned_by(made, resource["metadata"]["uid"]):
                self._take_stranger(key, kind, made)
                return False
            if self._take(kind, made, False) != key:
                # Its labels do not say any more whose it is, so that no watch tells of it under this key.
                self._take_stranger(key, kind, made)
            return True
        except ApiError as err:
            if not _is_refusal(err):
                raise
            generation = int(resource["metadata"].get("generation", 0))
            passing = not isinstance(err, InvalidError) or _WEBHOOK in err.message
            raise RefusedByServer(
                Refusal(manifest["kind"], metadata["name"], err.message, generation, passing)
            ) from err
        if manifest["kind"] not in UNSEEN:
            self._take(kind, made, False)
        return True

    def _label(self, namespace: str, action: LabelPod) -> None:
        change = {"metadata": {"uid": action.uid, "labels": {INDEX_LABEL: action.index}}}
        try:
            self._take(PODS, self._api.patch(PODS, namespace, action.name, change), False)
        except (NotFoundError, ConflictError) as err:  # it has gone
            log.debug("%s", err)
            self._take(PODS, {"metadata": {"name": action.name, "namespace": namespace, "uid": action.uid,
                                           "labels": {"job-name": action.name.rsplit("-", 2)[0]}}}, True)  # fmt: skip

    def write_status(self, resource: MiniCluster, status: MiniClusterStatus) -> None:
        """Only if it is what it was when this was decided. Raises ConflictError where it is not, ApiError."""
        metadata = resource["metadata"]
        change = {
            "metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
            "status": status,
        }
        written = self._api.patch(MINICLUSTERS, metadata["namespace"], metadata["name"], change, subresource="status")
        self._take(MINICLUSTERS, written, False)

    def tell(self, resource: MiniCluster, told: Told, now: str) -> None:
        """One Event, once: its name follows from what it says. Never raises: nothing depends on it."""
        metadata = resource["metadata"]
        text = told.message if len(told.message) <= _EVENT_LIMIT else told.message[: _EVENT_LIMIT - 4] + " ..."
        digest = hashlib.sha256(f"{metadata['uid']} {told.reason} {text}".encode()).hexdigest()[:16]
        event = {
            "metadata": {"name": f"{metadata['name']}.{digest}", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": MINICLUSTER_API_VERSION,
                "kind": "MiniCluster",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "type": "Warning" if told.warning else "Normal",
            "reason": told.reason,
            "message": text or told.reason,
            "source": {"component": MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._api.create(EVENTS, metadata["namespace"], event, manager=MANAGER)
        except ConflictError:
            pass  # told before
        except ApiError as err:
            log.warning("the event %s of %s/%s: %s", told.reason, metadata["namespace"], metadata["name"], err)


def _is_refusal(err: ApiError) -> bool:
    """Whether it is about the object, so that its user has to know; 500 is what a webhook is told by that fails."""
    return isinstance(err, InvalidError | ForbiddenError) or err.status == 500
