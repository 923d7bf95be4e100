"""How a name is asked for that the DNS remembers as missing: messages and settings. (The answers: on the test bed.)"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest

from executors.render.inside import fresh_name
from executors.render.inside.fresh_name import DNSSEC_OK, NO_CHECKS, answer, full_name, question, settings

IN_PODS = "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
NAME = b"\4mc-0\2mc\0"


def record(kind: int, data: bytes, owner: bytes = b"\xc0\x0c") -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, 30, len(data)) + data


def message(code: int, *answers: bytes, after: bytes = b"") -> bytes:
    head = struct.pack("!6H", 7, 0x8180 | code, 1, len(answers), 0, 1 if after else 0)
    return head + NAME + struct.pack("!HH", 1, 1) + b"".join(answers) + after


def test_the_settings_of_a_pod_are_read() -> None:
    search = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"]
    assert settings(IN_PODS) == (["10.96.0.10"], search)
    assert settings("# none\nnameserver\noptions ndots:x\n") == ([], [])


@pytest.mark.parametrize(
    ("name", "search", "whole"),
    [
        ("mc-0.mc", ["ns.svc.cluster.local", "svc.cluster.local"], "mc-0.mc.ns.svc.cluster.local"),
        ("mc-0.mc", ["corp.example", "ns.svc.cluster.local"], "mc-0.mc.ns.svc.cluster.local"),
        ("mc-0.mc.ns.svc", ["ns.svc.cluster.local"], "mc-0.mc.ns.svc.cluster.local"),
        ("mc-0.mc.ns.svc.cluster.local.", ["corp.example"], "mc-0.mc.ns.svc.cluster.local"),
        ("mc-0.mc", ["corp.example"], ""),
        ("mc-0.mc", [], ""),
    ],
)
def test_a_name_is_made_whole(name: str, search: list[str], whole: str) -> None:
    assert full_name(name, search) == whole


def test_a_question_is_a_dns_message() -> None:
    plain = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + NAME + struct.pack("!HH", 65280, 1)
    assert question(7, "mc-0.mc", 65280, 0) == plain
    extra = b"\0" + struct.pack("!HHIH", 41, 1232, DNSSEC_OK, 0)
    with_both = struct.pack("!6H", 7, 0x0110, 1, 0, 0, 1) + plain[12:] + extra
    assert question(7, "mc-0.mc", 65280, DNSSEC_OK | NO_CHECKS) == with_both


def test_addresses_are_read_from_an_answer() -> None:
    alias = record(5, b"\5other\xc0\x11")
    found = [record(1, bytes([10, 0, 0, 7]), b"\5other\xc0\x11"), record(28, bytes(15) + b"\1")]
    assert answer(message(0, alias, *found, after=record(1, bytes(4)))) == (0, ["10.0.0.7", "::1"])
    assert answer(message(3)) == (3, []), "there is no such name"
    assert answer(message(0)) == (0, []), "there is, but not of this type"


class Dns:
    """The name has each address from a moment on; an answer is remembered for ``memory`` seconds, by its question."""

    def __init__(self, memory: float, *addresses: tuple[float, str]) -> None:
        self.now = 0.0
        self._memory = memory
        self._addresses = addresses
        self._remembered: dict[tuple[int, int], tuple[float, str]] = {}

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def _true(self) -> str:
        return max((one for one in self._addresses if one[0] <= self.now), default=(0.0, ""))[1]

    def _address(self, kind: int, flags: int) -> str:
        until, address = self._remembered.get((kind, flags), (0.0, ""))
        if self.now >= until:
            address = self._true()
            self._remembered[kind, flags] = self.now + self._memory, address
        return address

    def ask(self, _servers: list[str], _name: str, kind: int, flags: int = 0) -> tuple[int, list[str]]:
        address = self._address(kind, flags)
        return (0 if address else 3), ([address] if kind == 1 and address else [])

    def known(self, _name: str) -> set[str]:
        return {self._address(1, 0)} - {""}

    def listens(self, address: str, _port: int) -> bool:
        return address == self._true()


Find = Callable[[Dns], str]


@pytest.fixture
def find(monkeypatch: pytest.MonkeyPatch) -> Find:
    """What a follower finds that begins now."""

    def find_by(dns: Dns) -> str:
        for name in ("ask", "known", "listens"):
            monkeypatch.setattr(fresh_name, name, getattr(dns, name))
        monkeypatch.setattr(time, "sleep", dns.sleep)
        monkeypatch.setattr(time, "time", lambda: dns.now)
        return fresh_name.find("mc-0.mc", 8050, ["10.96.0.10"], "mc-0.mc.ns.svc.cluster.local")

    return find_by


@pytest.mark.parametrize("moment", [0.5, 3.0, 28.0])
def test_a_name_that_is_denied_from_memory_is_found_when_it_exists(find: Find, moment: float) -> None:
    dns = Dns(30, (moment, "10.0.0.7"))
    dns.known("mc-0.mc")
    assert find(dns) == "10.0.0.7:8050" and dns.now <= moment + 1
    assert not dns.known("mc-0.mc"), "the resolver does not know it yet"


def test_a_name_that_comes_late_is_found_by_this_or_by_the_resolver(find: Find) -> None:
    dns = Dns(30, (500.0, "10.0.0.7"))
    found = find(dns)
    assert dns.now <= 502 and (found or dns.known("mc-0.mc"))


def test_what_was_denied_to_one_follower_does_not_hold_up_the_next(find: Find) -> None:
    dns = Dns(30, (12.0, "10.0.0.7"))
    dns.known("mc-0.mc")
    while dns.now < 10:
        dns.ask([], "", fresh_name.FIRST_TYPE + int(dns.now * 5) % fresh_name.TYPES)
        dns.sleep(0.2)
    assert find(dns) == "10.0.0.7:8050" and dns.now <= 13


def test_a_pod_that_is_gone_is_not_taken_for_the_one_in_its_place(find: Find) -> None:
    dns = Dns(30, (0.0, "10.0.0.6"), (1.0, ""), (4.0, "10.0.0.7"))
    dns.known("mc-0.mc")
    dns.now = 2.0
    assert find(dns) == "10.0.0.7:8050" and dns.now <= 5


def test_an_address_that_was_found_for_the_run_before_is_not_taken(find: Find) -> None:
    dns = Dns(30, (3.0, "10.0.0.6"), (12.0, ""), (15.0, "10.0.0.7"))
    dns.known("mc-0.mc")
    assert find(dns) == "10.0.0.6:8050"
    dns.now = 16.0
    found = find(dns)
    assert (found or dns.known("mc-0.mc")) in ("10.0.0.7:8050", {"10.0.0.7"}) and dns.now <= 34


def test_a_name_that_the_resolver_knows_is_left_to_it(find: Find) -> None:
    assert find(Dns(0, (3.0, "10.0.0.7"))) == ""


def test_a_name_outside_the_cluster_is_left_to_the_resolver(find: Find) -> None:
    assert fresh_name.find("lead.example", 8050, ["10.96.0.10"], "") == ""
