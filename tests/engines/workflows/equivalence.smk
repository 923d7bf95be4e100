# One of everything that a rule can be or have, with results that do not depend on time or place.
localrules: here, all

envvars: "EQUIVALENCE_TOKEN"

wildcard_constraints:
    i=r"\d+"

def nothing_more(wildcards):
    return sorted(glob_wildcards(checkpoints.split.get().output[0] + "/{part}.txt").part)

# What means something to a shell, to Snakemake's own command line, or to nobody.
REGIONS = ["chr1:1,000-2,000 it's $5 \"net\"", "back\\slash, Gr\u00f6\u00dfe a=b"]

rule all:
    input:
        expand("plain/{i}.txt", i=range(3)), "logged/x.txt", "bench/a.txt", "bench/b.txt", "dir", "kept.txt",
        "ensured.txt", "retried.txt", "touched.txt", "ran.txt", "scripted.txt", "shadowed.txt", "piped.txt",
        "grouped.txt", "parts.txt", "here.txt", "params.txt", "env.txt", "prefix.txt", "long.txt", "threads.txt",
        "multi/one.txt", "tmpdir.txt", "quoted file.txt", "secret.txt", "updated.txt", "named.txt",
        "late.txt", "measured_script.txt", "bash_script.txt", "wrapped.txt", expand("region/{r}.txt", r=REGIONS),
        expand("together/{r}.txt", r=REGIONS), "module/shell.txt", "module/changed.txt", "module/script.txt",

rule plain:
    output: "plain/{i}.txt"
    shell: "echo {wildcards.i} {rule} > {output}"

rule logged:
    input: "plain/0.txt"
    output: "logged/x.txt"
    log: "logs/logged.log"
    message: "a message about {input}"
    shell: "cat {input} > {output}; echo noise > {log}"

rule bench:
    output: "bench/{name}.txt"
    benchmark: repeat("benchmarks/{name}.tsv", 2)
    shell: "echo {wildcards.name} > {output}"

rule directory_output:
    output: directory("dir")
    shell: "mkdir {output}; echo in > {output}/file"

rule temporary:
    output: temp("temporary.txt")
    shell: "echo t > {output}"

rule kept:
    input: "temporary.txt"
    output: protected("kept.txt")
    shell: "cat {input} > {output}"

rule ensured:
    output: ensure("ensured.txt", non_empty=True)
    shell: "echo e > {output}"

rule retried:
    output: "retried.txt"
    retries: 2
    resources: level=lambda wildcards, attempt: attempt * 10
    shell: "if [ {resources.level} -lt 20 ]; then echo too low; exit 1; fi; echo {resources.level} > {output}"

rule touched:
    input: "plain/1.txt"
    output: touch("touched.txt")
    shell: "true"

rule ran:
    input: "plain/2.txt"
    output: "ran.txt"
    run:
        with open(output[0], "w") as out:
            out.write(open(input[0]).read() + str(threads))

rule scripted:
    output: "scripted.txt"
    params: word="scripted"
    script: "script.py"

rule measured_script:
    output: "measured_script.txt"
    params: word=lambda wildcards, resources: "in " + resources.tmpdir
    benchmark: repeat("benchmarks/script.tsv", 2)
    log: "logs/script.log"
    resources: tmpdir="scratch dir"
    script: "script.py"

rule bash_script:
    input: "plain/0.txt"
    output: "bash_script.txt"
    params: word="bash's"
    script: "script.sh"

rule wrapped:
    output: "wrapped.txt"
    params: word="wrapped"
    wrapper: "file:wrapper"

rule late:
    output: "late.txt"
    params:
        java=lambda wildcards, resources: f"-Djava.io.tmpdir={resources.tmpdir}",
        threads=lambda wildcards, threads, resources: [threads, resources.tmpdir],
    resources: tmpdir="scratch dir"
    shell: "printf '%s\\n' {params.java:q} {params.threads:q} {resources.tmpdir:q} > {output}"

rule region:
    output: "region/{r}.txt"
    params: word=lambda wildcards: wildcards.r
    script: "script.py"

rule first_together:
    output: temp("together/{r}.tmp")
    group: "regions"
    shell: "printf '%s\\n' {wildcards.r:q} > {output:q}"

rule then_together:
    input: "together/{r}.tmp"
    output: "together/{r}.txt"
    group: "regions"
    params: word=lambda wildcards: wildcards.r
    script: "script.py"

rule shadowed:
    input: "plain/0.txt"
    output: "shadowed.txt"
    shadow: "minimal"
    shell: "echo junk > junk.txt; cat {input} > {output}"

rule pipe_in:
    output: pipe("pipe.txt")
    shell: "seq 1 5 > {output}"

rule pipe_out:
    input: "pipe.txt"
    output: "piped.txt"
    shell: "cat {input} > {output}"

rule group_a:
    output: temp("group_a.txt")
    group: "together"
    shell: "echo a > {output}"

rule group_b:
    input: "group_a.txt"
    output: "grouped.txt"
    group: "together"
    shell: "cat {input} > {output}; echo b >> {output}"

checkpoint split:
    output: directory("parts")
    shell: "mkdir {output}; for n in 1 2 3; do echo $n > {output}/$n.txt; done"

rule join:
    input: lambda wildcards: expand("parts/{part}.txt", part=nothing_more(wildcards))
    output: "parts.txt"
    shell: "cat {input} > {output}"

rule here:
    output: "here.txt"
    shell: "echo here > {output}"

rule params:
    input: a="plain/0.txt", b="plain/1.txt"
    output: "params.txt"
    params: number=42, text="two words", many=["x", "y"], function=lambda wildcards, input: len(input)
    shell: "echo {params.number} {params.text:q} {params.many} {params.function} {input.b} > {output}"

rule env:
    output: "env.txt"
    threads: 2
    shell: "echo $OMP_NUM_THREADS $MKL_NUM_THREADS $OPENBLAS_NUM_THREADS $(pwd | xargs basename) > {output}"

rule prefix:
    output: "prefix.txt"
    shell: "false | true && echo no > {output} || echo 'pipefail is on' > {output}"

rule long:
    output: "long.txt"
    params: filler="x" * 100000
    shell: "echo {params.filler} | wc -c > {output}"

rule threads:
    output: "threads.txt"
    threads: 2
    shell: "echo {threads} > {output}"

rule multi:
    output: one="multi/one.txt", two="multi/two.txt"
    shell:
        """
        echo 1 > {output.one}
        echo '{{braces}}' > {output.two}
        """

rule tmpdir:
    output: "tmpdir.txt"
    resources: tmpdir="scratch dir"
    shell: "test -d {resources.tmpdir:q}; echo \"$TMPDIR {resources.tmpdir}\" > {output}"

rule quoted:
    output: "quoted file.txt"
    shell: "echo \"it's\" > {output:q}"

# A rule's function knows no name of its job.
name = "of the Snakefile"
rule named:
    output: "named.txt"
    shell: "echo {name} > {output}"

rule secret:
    output: "secret.txt"
    shell: "echo ${{#EQUIVALENCE_TOKEN}} > {output}"

rule update_it:
    input: "plain/0.txt"
    output: update("updated.txt")
    shell: "cat {input} >> {output}"

# A module has a config and names of its own, and the main Snakefile has others by the same names.
config["word"] = "main"
word = "main"

module part:
    snakefile: "module.smk"
    config: {"word": "module"}

use rule * from part as part_*

use rule shell from part as part_changed with:
    output: "module/changed.txt"
