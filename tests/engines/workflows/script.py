"""A rule's script: Snakemake gives it its rule as ``snakemake``."""

with open(snakemake.output[0], "w") as out:  # type: ignore[name-defined]  # noqa: F821 - given by Snakemake
    out.write(f"{snakemake.params.word} {snakemake.threads}\n")  # type: ignore[name-defined]  # noqa: F821
