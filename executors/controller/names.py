"""Our names in objects: who wrote a field, what was recorded, which Lease is held."""

from __future__ import annotations

#: Kubernetes' field manager.
MANAGER = "flux-operator-executors"
#: On a Job: digests of the fields of the spec that it was made of, as JSON. Whatever has it is ours.
RECORD_ANNOTATION = "flux-operator-executors/recorded-spec"
#: On a Job: the size that was asked of it last. Its parallelism may be somebody else's wish (Kueue).
SIZE_ANNOTATION = "flux-operator-executors/recorded-size"
#: On a lead's pod: since when (a timestamp) it has had the wish of its size (`executors.render.names.WISH_ANNOTATION`).
SINCE_ANNOTATION = "flux-operator-executors/size-since"
#: On a MiniCluster, our option: seconds that jobs have to end before their ranks go.
DRAIN_ANNOTATION = "flux-operator-executors/drain-seconds"
#: The same: "true" for a NetworkPolicy around its pods.
ISOLATED_ANNOTATION = "flux-operator-executors/network-policy"
#: On a Job: kinds and names of what was made beside it, separated by spaces.
PARTS_ANNOTATION = "flux-operator-executors/parts"
#: Our own Lease, and the one by which upstream's operator elects its leader.
LEASE = "flux-operator-executors"
UPSTREAM_LEASE = "14dde902.flux-framework.org"
#: Label by which upstream's users find one pod.
INDEX_LABEL = "job-index"
