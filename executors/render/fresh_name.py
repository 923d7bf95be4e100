"""Prints the address of a name that the cluster's DNS still says does not exist, once it does: a program of its own.

A pod's name exists when the kubelet has told the pod's address. Who asks sooner makes DNS remember the denial (RFC
2308), in many clusters for 5 to 30 s, and all who ask in these seconds get the same answer. But a denial is remembered
for a *type* of record. This asks for types of private use (65280 to 65534, RFC 6895), each once, to which the answer is
"no such name" until the name exists and "no such record" then; and then for the address, with flags (DNSSEC OK, RFC
3225, and checking disabled, RFC 4035) that nobody has asked with yet.

Its text is a part of the entry script, run by Flux's Python: ``python3 - NAME``. It prints nothing and
ends where the system's resolver knows the name as well, and with the program that has started it.
"""

import itertools
import os
import socket
import struct
import sys
import time
from typing import List, Optional, Set, Tuple

PRIVATE_TYPES = range(65280, 65535)
RECURSION, NO_CHECKS, DNSSEC_OK = 0x0100, 0x0010, 0x8000
NO_ERROR, NO_SUCH_NAME = 0, 3
#: Turns with a short pause; and after how many the system's resolver is believed, if it alone knows the name.
FAST, STALE = 50, 100
ADDRESSES = {1: socket.AF_INET, 28: socket.AF_INET6}  # the types A and AAAA


def settings(text: str) -> Tuple[List[str], List[str], int]:
    """The name servers of a resolv.conf(5), its search list, and how many dots make a name whole."""
    servers: List[str] = []
    search: List[str] = []
    dots = 1
    for words in map(str.split, text.splitlines()):
        if words[:1] == ["nameserver"]:
            servers += words[1:2]
        elif words[:1] in (["search"], ["domain"]):
            search = words[1:]
        elif words[:1] == ["options"]:
            dots = max([int(word[6:]) for word in words if word.startswith("ndots:")] or [dots])
    return servers, search, dots


def full_name(name: str, search: List[str], dots: int) -> str:
    """As it is asked for: pods' names are in the domain of their namespace."""
    if name.count(".") >= dots or not search:
        return name
    return name + "." + next((domain for domain in search if ".svc." in domain), search[0])


def question(number: int, name: str, kind: int, flags: int) -> bytes:
    """A DNS message (RFC 1035, 4) that asks for one type of record."""
    labels = b"".join(struct.pack("B", len(label)) + label for label in name.encode().rstrip(b".").split(b"."))
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


def ask(server: str, name: str, kind: int, flags: int = 0) -> Tuple[Optional[int], List[str]]:
    """As `answer`; (None, []) where there is none within a second."""
    number = struct.unpack("!H", os.urandom(2))[0]
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(1)
        try:
            link.connect((server, 53))
            link.send(question(number, name, kind, flags))
            data = link.recv(4096)
            return answer(data) if data[:2] == struct.pack("!H", number) else (None, [])
        except (OSError, ValueError, IndexError, struct.error):  # the last three: what is no DNS message
            return None, []


def known(name: str) -> Set[str]:
    """What the system's resolver says."""
    try:
        return {str(one[4][0]) for one in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def fresh(server: str, name: str) -> List[str]:
    """The addresses by questions that nobody has asked; none where all have been."""
    for flags in (DNSSEC_OK, NO_CHECKS, DNSSEC_OK | NO_CHECKS):
        found = [address for kind in ADDRESSES for address in ask(server, name, kind, flags)[1]]
        if found:
            return found
    return []


def find(name: str, servers: List[str], whole: str) -> None:
    """See above. ``whole``: the name as a name server is asked for it."""
    parent = os.getppid()
    for turn, kind in enumerate(itertools.cycle(PRIVATE_TYPES)):
        if os.getppid() != parent or not servers:
            return
        code = ask(servers[0], whole, kind)[0]
        found = fresh(servers[0], whole) if code == NO_ERROR else []
        there = known(name)
        # An address that is remembered may be that of a pod that is gone.
        if found and not there.intersection(found):
            print(f"[{found[0]}]" if ":" in found[0] else found[0])
            return
        if there and (code != NO_SUCH_NAME or turn > STALE):
            return
        time.sleep(0.2 if turn < FAST else 1)


def main(name: str) -> None:
    with open("/etc/resolv.conf") as file:
        servers, search, dots = settings(file.read())
    find(name, servers, full_name(name, search, dots))


if __name__ == "__main__":
    main(sys.argv[1])
