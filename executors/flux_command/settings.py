"""Our configuration for Nextflow, and where it is put on a command line. Pure."""

from __future__ import annotations

from collections.abc import Sequence

TEXT = """\
// Nextflow's executor `flux`, as flux-minicluster answers it. What you name by -c yourself counts more.
process.executor = 'flux'

executor {
    queueStatInterval = '5 sec'
    exitReadTimeout = '30 sec'
    // How often results are looked for, and how many tasks may be submitted at once: by NXF_EXECUTOR_POLLINTERVAL and
    // NXF_EXECUTOR_QUEUESIZE, so that values of your own count more wherever they stand. Where this file is used by
    // itself they are Nextflow's defaults, 5 s and 100.
    // pollInterval = '1 sec'
    // queueSize = 1000

    // Nextflow passes neither memory nor accelerators nor seconds on to Flux. The name of the job does, in front, so
    // that clusterOptions stay what each process says. The name that is shown is without it.
    jobName = {
        // Nextflow waits for ever for a refused task whose errorStrategy is then "ignore"; such a task is to
        // fail instead. The directive is asked past `task`, which would keep the answer; and once for each process and
        // attempt, since a closure may well sleep.
        def refused = System.properties.computeIfAbsent("fluxop ${task.process} ${task.attempt}".toString()) {
            try {
                "${task.eval('errorStrategy')}".toString().toLowerCase()
            }
            catch (Throwable e) {
                ''  // it can be asked when there is an exit status only; a failed `assert` is no Exception
            }
        }
        'fxo' + (task.time ? ":t${task.time.toSeconds()}" : '') +
            (task.memory ? ":m${task.memory.toMega()}" : '') +
            (task.accelerator ? ":g${task.accelerator.request ?: task.accelerator.limit}" : '') +
            (refused == 'ignore' ? ':i' : '') +
            " nf-${task.name}"
    }
}
"""


def with_config(argv: Sequence[str], path: str) -> list[str]:
    """A command line of Nextflow's with our file before all that the user names by ``-c``; theirs count more.

    With ``-C`` (no other configuration than that) it is left as it is.
    """
    return list(argv) if "-C" in argv else [argv[0], "-c", path, *argv[1:]]


def work_directory(argv: Sequence[str], environ_work: str | None) -> str | None:
    """What a command line (or NXF_WORK) says of the work directory; None: nothing, so that a config may."""
    words = list(argv)
    for at, word in enumerate(words):
        if word in ("-w", "-work-dir", "--work-dir") and at + 1 < len(words):
            return words[at + 1]
        if word.startswith(("-w=", "-work-dir=")):
            return word.partition("=")[2]
    return environ_work or None
