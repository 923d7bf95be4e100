"""Align read pairs (FASTQ, gzip) to an indexed genome with bwa mem; writes an unsorted BAM."""

import argparse
import sys

import pysam
from pybwa import BwaMem, BwaMemOptions


def read_pairs(first: str, second: str) -> list[pysam.FastxRecord]:
    """Both mates of all pairs, one after the other, as bwa wants interleaved reads."""
    with pysam.FastxFile(first) as one, pysam.FastxFile(second) as two:
        reads = [read for pair in zip(one, two, strict=True) for read in pair]
    if not reads:
        sys.exit(f"{first}: holds no reads")
    return reads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    for name in ("genome", "first", "second", "bam"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    options = BwaMemOptions()
    options.interleaved_paired_end = True
    options.threads = arguments.threads
    hits = BwaMem(arguments.genome).align(read_pairs(arguments.first, arguments.second), options)
    header = next(read for reads in hits for read in reads).header
    with pysam.AlignmentFile(arguments.bam, "wb", header=header) as out:
        for reads in hits:
            for read in reads:
                out.write(read)
    print(f"{len(hits)} reads aligned", file=sys.stderr)


if __name__ == "__main__":
    main()
