"""All our instances in one place, for those who look after them rather than use one.

Not among the public names of the package, as most programs need none of it; adapters import it from here.
"""

from executors.lifecycle.reap import Reaped, reap
from executors.provision import Instance
from executors.provision.inventory import instances

__all__ = ["Instance", "Reaped", "instances", "reap"]
