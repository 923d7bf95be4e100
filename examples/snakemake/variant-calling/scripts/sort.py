"""Sort a BAM by position and index it."""

import sys

import pysam


def main(unsorted: str, bam: str) -> None:
    pysam.sort("-o", bam, unsorted)
    pysam.index(bam)


if __name__ == "__main__":
    main(*sys.argv[1:])
