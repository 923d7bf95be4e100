"""Coverage of each sample along the genome, and where its variants lie.

Run by Snakemake's ``script:``, or as ``plot.py TABLE GENOME PICTURE BAM...``: samples are the BAMs' names less suffix.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pysam

BIN = 200  # bases


def coverage(path: str, chrom: str, length: int) -> list[float]:
    """Mean depth in reads of each bin."""
    with pysam.AlignmentFile(path) as bam:
        counts = [sum(bases) for bases in zip(*bam.count_coverage(chrom, 0, length, quality_threshold=0), strict=True)]
    return [sum(counts[start : start + BIN]) / len(counts[start : start + BIN]) for start in range(0, length, BIN)]


def main(table_path: str, genome_path: str, picture: str, samples: Sequence[str], bams: Sequence[str]) -> None:
    with pysam.FastaFile(genome_path) as genome:
        chrom, length = genome.references[0], genome.lengths[0]
    with open(table_path, newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    figure, axes = plt.subplots(len(samples), sharex=True, figsize=(10, 1.9 * len(samples) + 1), layout="constrained")
    positions = [start / 1000 for start in range(0, length, BIN)]
    kinds = (("SNV", "#c1272d", "o"), ("insertion or deletion", "#0000a7", "^"))
    for axis, sample, bam in zip(axes, samples, bams, strict=True):
        depth = coverage(bam, chrom, length)
        top = max(depth) * 1.35
        axis.fill_between(
            positions, depth, step="post", color="#b8c4d0", linewidth=0, label=f"depth, mean of {BIN} bases"
        )
        found = [row for row in rows if row[f"{sample}_genotype"] != "0"]
        for name, colour, marker in kinds:
            places = [
                int(row["pos"]) / 1000
                for row in found
                if (len(row["ref"]) == 1 == max(map(len, row["alt"].split(",")))) == (name == "SNV")
            ]
            axis.plot(places, [max(depth) * 1.18] * len(places), marker, color=colour, markersize=5, label=name)
        axis.set(ylim=(0, top), xlim=(0, length / 1000), ylabel="depth (reads)")
        axis.set_title(f"sample {sample}: {len(found)} variants", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel(f"position on {chrom} (kb)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.suptitle("Variants in three samples of phage lambda")
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(picture, dpi=130)


if "snakemake" in globals():
    job = globals()["snakemake"]  # given by Snakemake
    main(job.input.table, job.input.genome, job.output[0], list(job.params.samples), job.input.bams)
elif __name__ == "__main__":
    found = sys.argv[4:]
    main(sys.argv[1], sys.argv[2], sys.argv[3], [Path(bam).stem for bam in found], found)
