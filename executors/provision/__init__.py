"""Where a Flux instance comes from: one protocol (`base.Provisioner`), two rooms with two provisioners each.

- `kubernetes`: a MiniCluster in a cluster (direct, operator).
- `local`: an instance on this machine (local), or the one that is there (attach).

On top lives only what both rooms need or what chooses between them. A provisioner returns an Endpoint, a value; only
`executors.transport` opens it. What must not live here: messages to the agent, sessions, anything of a workflow engine.
"""

from executors.provision.base import Instance, Provisioner, Resizable
from executors.provision.choice import choose_provisioner, make_provisioner

__all__ = ["Instance", "Provisioner", "Resizable", "choose_provisioner", "make_provisioner"]
