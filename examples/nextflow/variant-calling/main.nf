// Variants of three samples of phage lambda: data, tools and result are those of examples/snakemake/variant-calling.

params.source = "${projectDir}/../../snakemake/variant-calling"
params.python = 'python3'
params.min_quality = 20
params.threads = 2
params.results = 'results'

process INDEX {
    input:
    path packed

    output:
    path 'genome.*'

    script:
    """
    ${params.python} ${params.source}/scripts/index.py ${packed} genome.fa
    """
}

process ALIGN {
    tag "${sample}"
    cpus params.threads
    memory '500 MB'
    time '10 min'

    input:
    path genome
    tuple val(sample), path(reads)

    output:
    tuple val(sample), path("${sample}.unsorted.bam")

    script:
    """
    ${params.python} ${params.source}/scripts/align.py --threads ${task.cpus} genome.fa ${reads} ${sample}.unsorted.bam
    """
}

process SORT {
    tag "${sample}"

    input:
    tuple val(sample), path(unsorted)

    output:
    tuple val(sample), path("${sample}.bam"), path("${sample}.bam.bai")

    script:
    """
    ${params.python} ${params.source}/scripts/sort.py ${unsorted} ${sample}.bam
    """
}

process CALL {
    tag "${sample}"

    input:
    path genome
    tuple val(sample), path(bam), path(bai)

    output:
    tuple path("${sample}.bcf"), path("${sample}.bcf.csi")

    script:
    """
    ${params.python} ${params.source}/scripts/call.py --sample ${sample} --min-quality ${params.min_quality} \\
        genome.fa ${bam} ${sample}.bcf
    """
}

process MERGE {
    input:
    path calls

    output:
    path 'variants.bcf'

    script:
    """
    ${params.python} ${params.source}/scripts/merge.py *.bcf variants.bcf
    """
}

process TABLE {
    publishDir params.results, mode: 'copy'

    input:
    path variants
    path bams

    output:
    path 'variants.tsv'

    script:
    """
    ${params.python} ${params.source}/scripts/table.py ${variants} *.bam > variants.tsv
    """
}

process PLOT {
    publishDir params.results, mode: 'copy'

    input:
    path table
    path genome
    path bams

    output:
    path 'variants.png'

    script:
    """
    ${params.python} ${params.source}/scripts/plot.py ${table} genome.fa variants.png *.bam
    """
}

workflow {
    genome = INDEX(file("${params.source}/data/lambda.fa.gz"))
    reads = Channel.fromFilePairs("${params.source}/data/sample_*.{1,2}.fq.gz")
        .map { name, files -> tuple(name - 'sample_', files) }
    sorted = SORT(ALIGN(genome, reads))
    calls = CALL(genome, sorted)
    bams = sorted.map { sample, bam, bai -> [bam, bai] }.flatten().collect()
    table = TABLE(MERGE(calls.flatten().collect()), bams)
    PLOT(table, genome, bams)
}
