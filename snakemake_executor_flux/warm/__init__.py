"""The warm step's two programs: a server on each node that has imported Snakemake and forks for each job, and the
client that is the job's process.

Both run as files or as texts (``python -c``), so each is one module that imports nothing of this package.
"""
