"""MiniClusters on Kubernetes: made (direct mode, operator mode), waited for, judged, listed and removed.

- `provisioner` glues: `direct` and `operator` are modes (`mode.Mode`) and make a MiniCluster by a `recipe`; `owner`
  knows whose it is and who may delete it; `startup` waits for it; `health` tells what has become of it; `target` is its
  address.
- Pure are `diagnosis` (one object), `picture` (all of a MiniCluster), `startup`, `timeouts`, `published` and
  `owner.Ownership`. The Flux Operator (`executors.controller`) judges by the first two as well.

What must not live here: what an object looks like (`executors.render`), requests (`executors.kube`), anything of
instances on this machine (`executors.provision.local`). This file imports nothing, so that one module costs no other.
"""
