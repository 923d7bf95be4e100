"""One instance per run: get it or create it, release it, find and end those that were left.

Knows provisioners, and nothing of how they work. What must not live here: jobs (`executors.session`), ways of creating
instances (`executors.provision`).
"""

from executors.lifecycle.manager import Lifecycle

__all__ = ["Lifecycle"]
