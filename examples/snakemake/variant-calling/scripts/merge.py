"""Merge the calls of all samples; the last argument is the output (BCF)."""

import sys

import pysam.bcftools


def main(calls: list[str], merged: str) -> None:
    pysam.bcftools.merge("-Ob", "-o", merged, *calls, catch_stdout=False)


if __name__ == "__main__":
    main(sys.argv[1:-1], sys.argv[-1])
