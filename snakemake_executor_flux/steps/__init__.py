"""Ways to run one Snakemake job, cheapest first: `shell`, then (not written yet) warm, then `snakemake`.

`choice` decides, as a pure function of facts; each step turns a job into a `StepCommand`. A warm step (one server per
node that has parsed the workflow and forks per job) would be one more module here and one more answer of `choice`.
"""
