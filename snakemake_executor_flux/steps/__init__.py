"""Ways to run one Snakemake job, cheapest first: `shell`, `script`, `warm`, `snakemake`.

`choice` decides, as a pure function of facts; each step turns a job into a `StepCommand`.
"""
