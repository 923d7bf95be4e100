"""Endpoint -> byte stream. Knows how to open a stream to an agent and nothing of what travels on it.

What must not live here: messages (`executors.agent.wire`), reconnecting (`executors.client`), creating instances.
"""

from executors.transport.base import Endpoint, PodExecEndpoint, ProgramEnded, Stream, UnixEndpoint
from executors.transport.streams import open_stream

__all__ = ["Endpoint", "PodExecEndpoint", "ProgramEnded", "Stream", "UnixEndpoint", "open_stream"]
