"""The program beside the lead broker (or beside nothing, with the embedded engine).

It is packed into one zipapp and started by the Python that Flux itself runs with, so everything in here keeps to
the standard library, Flux's own bindings (in `flux_engine` alone) and Python 3.8 syntax, and imports nothing of
the project but itself. What must not live here: knowledge of workflow engines, of Kubernetes, or of configs.
"""
