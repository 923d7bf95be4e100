"""Where a Flux instance comes from: one protocol (`base.Provisioner`), one module per way.

A provisioner gives an Endpoint, a value; only `executors.transport` opens it. What must not live here: messages to
the agent, sessions, anything of a workflow engine.
"""

from executors.provision.base import Instance, Provisioner, Resizable, choose, make_provisioner

__all__ = ["Instance", "Provisioner", "Resizable", "choose", "make_provisioner"]
