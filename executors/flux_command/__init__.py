"""The `flux` command that Nextflow's own executor calls, and the session process of a run that answers it.

`client` is the command: one request on one unix socket. `server` answers it out of `tasks`, which has the run's
`executors.Session`, and gives tasks their results by `settling`; `launch` starts that process and puts the command in
front of Nextflow. Pure are `arguments` (what a command line asks for, with `options` and `values`), `placing` (what a
job is given), `ending` (what a result file must say), `settings` (Nextflow's configuration), `environment`, `ingest`
and `inner` (what runs a task elsewhere). What runs inside the command uses the standard library only: `client`,
`burial`, `ending`, `records`.

What must not live here: anything about instances (that is the session's), and command-line options of
flux-minicluster (`executors.cli.nextflow`).
"""
