"""Requests, replies, events and output over one stream to an agent, across cuts and restarts of the agent.

`conversation` (bytes in, messages out) and `calls` (requests without an answer) do no I/O; `client` has the reader
thread and reconnects. Nothing here knows what a job's result means, nor how an instance is made.
"""

from executors.client.client import Client, Handler
from executors.client.conversation import Hello
from executors.client.subscriptions import WINDOW, OutputSubscription, Sink

__all__ = ["WINDOW", "Client", "Handler", "Hello", "OutputSubscription", "Sink"]
