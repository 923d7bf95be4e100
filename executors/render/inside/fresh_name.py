"""Prints the address of a name that the cluster's DNS still says does not exist, once it does: a program of its own.

A pod's name exists when the kubelet has told the pod's address. Who asks sooner makes DNS remember the denial (RFC
2308), in many clusters for 5 to 30 s, and all who ask in these seconds get the same answer. But a denial is remembered
for a *type* of record. This asks for types of private use (65280 to 65534, RFC 6895), one after the other, to which the
answer is "no such name" until the name exists and "no such record" then; and then for the address, with flags (DNSSEC
OK, RFC 3225, and checking disabled, RFC 4035) that hardly anybody asks with. What takes no connection is not printed:
an address is remembered as well, and may be that of a pod that is gone.

Its text is a part of the entry script, run by Flux's Python: ``python3 - NAME PORT``. It prints nothing and ends where
the system's resolver knows the name as well, and with the program that has started it. Prints ``ADDRESS:PORT``.
"""

import os
import socket
import struct
import sys
import time
from typing import List, Optional, Set, Tuple

FIRST_TYPE, TYPES = 65280, 255
RECURSION, NO_CHECKS, DNSSEC_OK = 0x0100, 0x0010, 0x8000
NO_ERROR, NO_SUCH_NAME = 0, 3
ADDRESSES = {1: socket.AF_INET, 28: socket.AF_INET6}  # the types A and AAAA
#: Turns with a short pause; and after how many the system's resolver is believed, if it alone knows the name.
FAST, STALE = 50, 100


def settings(text: str) -> Tuple[List[str], List[str]]:
    """The name servers of a resolv.conf(5), and its search list."""
    servers: List[str] = []
    search: List[str] = []
    for words in map(str.split, text.splitlines()):
        if words[:1] == ["nameserver"]:
            servers += words[1:2]
        elif words[:1] in (["search"], ["domain"]):
            search = words[1:]
    return servers, search


def full_name(name: str, search: List[str]) -> str:
    """As a name server is asked for it: pods' names end with NAMESPACE.svc and the cluster's domain. "" if unknown."""
    name = name.rstrip(".")
    domain = next((one for one in search if ".svc." in one), "")
    if ".svc." in name or not domain:
        return name if ".svc." in name else ""
    return name + "." + (domain.split(".svc.", 1)[1] if name.endswith(".svc") else domain)


def question(number: int, name: str, kind: int, flags: int) -> bytes:
    """A DNS message (RFC 1035, 4) that asks for one type of record."""
    labels = b"".join(struct.pack("B", len(label)) + label for label in name.encode().split(b"."))
    extra = struct.pack("!BHHIH", 0, 41, 1232, DNSSEC_OK, 0) if flags & DNSSEC_OK else b""
    head = struct.pack("!6H", number, RECURSION | flags & NO_CHECKS, 1, 0, 0, 1 if extra else 0)
    return head + labels + struct.pack("!BHH", 0, kind, 1) + extra


def answer(data: bytes) -> Tuple[int, List[str]]:
    """The response code of a DNS message, and the addresses in its answers."""
    _, flags, questions, answers, _, _ = struct.unpack("!6H", data[:12])
    at = 12
    found: List[str] = []
    for part in range(questions + answers):
        while data[at] and data[at] < 0xC0:  # else a pointer to a name told before
            at += 1 + data[at]
        at += 2 if data[at] else 1
        if part < questions:
            at += 4
            continue
        kind, _, _, length = struct.unpack("!HHIH", data[at : at + 10])
        at += 10 + length
        if kind in ADDRESSES:
            found.append(socket.inet_ntop(ADDRESSES[kind], data[at - length : at]))
    return flags & 0xF, found


def ask(servers: List[str], name: str, kind: int, flags: int = 0) -> Tuple[Optional[int], List[str]]:
    """As `answer`, from the first server that answers within a second; (None, []) where none does."""
    number = struct.unpack("!H", os.urandom(2))[0]
    for server in servers:
        try:
            with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as link:
                link.settimeout(1)
                link.connect((server, 53))
                link.send(question(number, name, kind, flags))
                data = link.recv(4096)
                if data[:2] == struct.pack("!H", number):
                    return answer(data)
        except (OSError, ValueError, IndexError, struct.error):  # the last three: what is no DNS message
            continue
    return None, []


def known(name: str) -> Set[str]:
    """What the system's resolver says."""
    try:
        return {str(one[4][0]) for one in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def fresh(servers: List[str], name: str) -> List[str]:
    """The addresses by questions that hardly anybody asks."""
    for flags in (DNSSEC_OK, NO_CHECKS, DNSSEC_OK | NO_CHECKS):
        found = [address for kind in ADDRESSES for address in ask(servers, name, kind, flags)[1]]
        if found:
            return found
    return []


def listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True


def find(name: str, port: int, servers: List[str], whole: str) -> str:
    """See above. ``whole``: the name as a name server is asked for it."""
    program = os.getppid()
    turn = 0
    while servers and whole and os.getppid() == program:
        # By the clock: what others have asked for a moment ago, and had denied, is not asked for again.
        code = ask(servers, whole, FIRST_TYPE + int(time.time() * 5) % TYPES)[0]
        found = fresh(servers, whole) if code == NO_ERROR else []
        there = known(name)
        for address in found:
            if address not in there and listens(address, port):
                return "[%s]:%d" % (address, port) if ":" in address else "%s:%d" % (address, port)
        if there.intersection(found) or (there and (code != NO_SUCH_NAME or turn > STALE)):
            return ""
        time.sleep(0.2 if turn < FAST else 1)
        turn += 1
    return ""


def main(name: str, port: str) -> None:
    with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
        servers, search = settings(file.read())
    print(find(name, int(port), servers, full_name(name, search)))


if __name__ == "__main__":
    main(*sys.argv[1:])
