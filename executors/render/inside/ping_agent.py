"""Whether the agent whose socket is named answers: the exit code."""

import socket
import sys


def main(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(10)
        agent.connect(path)
        agent.sendall(b"{\"ping\":1}\n")  # fmt: skip
        return bool(agent.recv(64))


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1]))
