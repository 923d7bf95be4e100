"""Call the variants of one haploid sample with bcftools (the one inside pysam); writes an indexed BCF."""

import argparse
import os
import tempfile

import pysam.bcftools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", required=True)
    parser.add_argument("--min-quality", type=float, default=20.0, help="Phred scaled")
    for name in ("genome", "bam", "bcf"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        pileup, raw, names = (os.path.join(scratch, name) for name in ("pileup.bcf", "raw.bcf", "names"))
        # -A: pybwa does not mark pairs as proper, and bcftools leaves out pairs that are not.
        pysam.bcftools.mpileup("-A", "-f", arguments.genome, "-Ou", "-o", pileup, arguments.bam, catch_stdout=False)
        pysam.bcftools.call("--ploidy", "1", "-mv", "-Ou", "-o", raw, pileup, catch_stdout=False)
        with open(names, "w") as out:
            out.write(arguments.sample + "\n")
        named = os.path.join(scratch, "named.bcf")
        pysam.bcftools.reheader("-s", names, "-o", named, raw, catch_stdout=False)
        rule = f"QUAL>={arguments.min_quality:g}"
        pysam.bcftools.view("-i", rule, "-Ob", "-o", arguments.bcf, named, catch_stdout=False)
    pysam.bcftools.index("-f", arguments.bcf, catch_stdout=False)


if __name__ == "__main__":
    main()
