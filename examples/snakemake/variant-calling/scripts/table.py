"""A table of merged calls: position (1-based), alleles, quality (Phred), and per sample genotype and depth (reads)."""

import sys

import pysam


def genotype(call: pysam.VariantRecordSample) -> str:
    """The allele's number: 0 is the reference, which a call that is missing from one sample's file stands for."""
    alleles = [str(allele) for allele in call["GT"] if allele is not None]
    return "/".join(alleles) or "0"


def main(merged: str, bams: list[str]) -> None:
    with pysam.VariantFile(merged) as calls:
        samples = list(calls.header.samples)
        columns = [f"{name}_{what}" for name in samples for what in ("genotype", "depth")]
        print("chrom", "pos", "ref", "alt", "qual", *columns, sep="\t")
        reads = [pysam.AlignmentFile(bam) for bam in bams]
        for record in calls:
            cells: list[object] = []
            for name, bam in zip(samples, reads, strict=True):
                depth = bam.count(record.chrom, record.pos - 1, record.pos)
                cells += [genotype(record.samples[name]), depth]
            alternatives = ",".join(record.alts or ())
            print(record.chrom, record.pos, record.ref, alternatives, f"{record.qual or 0:.0f}", *cells, sep="\t")
        for bam in reads:
            bam.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
