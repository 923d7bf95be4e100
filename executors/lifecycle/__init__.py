"""One instance per run: get it or create it, release it, find and end those that were left.

Knows provisioners, and nothing of how they work. What must not live here: jobs (`executors.session`), ways of creating
instances (`executors.provision`).
"""

from executors.lifecycle.manager import Lifecycle
from executors.lifecycle.reap import Reaped, reap
from executors.provision import Instance
from executors.provision.inventory import instances, own_config

__all__ = ["Instance", "Lifecycle", "Reaped", "instances", "own_config", "reap"]
