"""What answers the agent's clients: the stream, its requests, the table of jobs, and the watchdog that ends the agent.

What must not live here: how a job is run. An engine is known by its contract only (`executors.agent.engine`).
"""
