"""Unpack a genome (FASTA, gzip) and index it for bwa and for random access."""

import gzip
import shutil
import sys

import pysam
from pybwa import BwaIndex


def main(packed: str, genome: str) -> None:
    with gzip.open(packed, "rb") as source, open(genome, "wb") as target:
        shutil.copyfileobj(source, target)
    BwaIndex.index(genome)
    pysam.faidx(genome)


if __name__ == "__main__":
    main(*sys.argv[1:])
