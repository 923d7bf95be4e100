"""``flux-minicluster``: instances and their jobs from a terminal.

    up down list status resize reap      instances           (`clusters`)
    run jobs logs cancel                 jobs in them        (`jobs`)
    render validate                      files               (`files`)
    doctor                               what is missing     (`doctor`)

What must not live here: anything that an adapter could want too; that belongs to the session or the lifecycle.
"""
