"""Prints what keeps a broker from its lead, whose name and port are given: the end of a sentence."""

import socket
import sys


def main(host: str, port: int) -> None:
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
        print(" address %s, port %d:" % (address, port), end="")
        socket.create_connection((host, port), 5).close()
        print(" somebody listens there, and takes this broker for none of his")
    except OSError as err:
        print(" %s" % err)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
