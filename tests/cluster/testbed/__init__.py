"""A real Kubernetes on this machine, for tests: built from source once, started in seconds, gone without a trace.

A bed is a control plane (``control_plane``), and where root may make namespaces also a node (``node``). ``place`` says
where its processes run, ``keeper`` ends them with the process that wanted them, ``binaries`` and ``image`` make what
is cached. Nothing here knows pytest or the project's own packages.
"""
