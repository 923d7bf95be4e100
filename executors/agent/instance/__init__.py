"""The programs around an agent: what keeps an instance alive, ends it, and removes what it leaves.

They start while a client waits, so they import little. What must not live here: the protocol, and running jobs.
"""
