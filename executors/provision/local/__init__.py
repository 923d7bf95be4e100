"""Instances on this machine: started below a keeper (local), or found by FLUX_URI (attach), and their directories.

The keeper itself is `executors.agent.keeper`: it starts by its path, with no other module of this package. What must
not live here: anything of Kubernetes. This file imports nothing, so that one module costs no other.
"""
