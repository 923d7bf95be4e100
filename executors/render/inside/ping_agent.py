"""Whether the agent whose socket is named answers: the exit code."""

import socket
import sys

agent = socket.socket(socket.AF_UNIX)
agent.settimeout(10)
agent.connect(sys.argv[1])
agent.sendall(b'{"ping":1}\n')
sys.exit(not agent.recv(64))
