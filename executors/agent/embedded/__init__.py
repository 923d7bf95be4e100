"""The engine over processes of this machine, for one without Flux: its plan of a jobspec, processes and their ends.

What must not live here: requests, clients, results, anything of Flux but the words of its jobspecs and events.
"""
