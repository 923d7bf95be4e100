"""The Snakemake executor ``flux-operator``: settings, resources -> JobRequest, steps, reporting.

What must not live here: anything of Flux or Kubernetes themselves; that is `executors`.
"""
