"""The program beside the lead broker (or beside nothing, with the embedded engine).

Rooms: `protocol` answers clients; `flux` and `embedded` are the two engines that run jobs; `instance` holds the small
programs around an agent. What several of them use lies here: `wire` (the contract with clients), `engine` (the contract
between `protocol` and the engines), `environment`, `file_follower`, `process_tree`.

It is packed into one zipapp and started by the Python that Flux itself runs with, so everything in here keeps to
the standard library, Flux's own bindings (in `flux` alone) and Python 3.8 syntax, and imports nothing of the project
but itself. A client waits for some of these programs to start, so no package's `__init__` imports anything. What must
not live here: knowledge of workflow engines, of Kubernetes, or of configs.
"""
