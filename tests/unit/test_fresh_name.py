"""How a name is asked for that the DNS remembers as missing: messages and settings. (The answers: on the test bed.)"""

from __future__ import annotations

import struct

import pytest

from executors.render.fresh_name import DNSSEC_OK, NO_CHECKS, answer, full_name, question, settings

IN_PODS = "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
NAME = b"\4mc-0\2mc\0"


def record(kind: int, data: bytes, owner: bytes = b"\xc0\x0c") -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, 30, len(data)) + data


def message(code: int, *answers: bytes, after: bytes = b"") -> bytes:
    head = struct.pack("!6H", 7, 0x8180 | code, 1, len(answers), 0, 1 if after else 0)
    return head + NAME + struct.pack("!HH", 1, 1) + b"".join(answers) + after


def test_the_settings_of_a_pod_are_read() -> None:
    search = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"]
    assert settings(IN_PODS) == (["10.96.0.10"], search, 5)
    assert settings("# none\nnameserver\n") == ([], [], 1)


@pytest.mark.parametrize(
    ("name", "search", "whole"),
    [
        ("mc-0.mc", ["ns.svc.cluster.local", "svc.cluster.local"], "mc-0.mc.ns.svc.cluster.local"),
        ("mc-0.mc", ["corp.example", "ns.svc.cluster.local"], "mc-0.mc.ns.svc.cluster.local"),
        ("mc-0.mc", ["corp.example"], "mc-0.mc.corp.example"),
        ("mc-0.mc", [], "mc-0.mc"),
        ("mc-0.mc.ns.svc.cluster.local", ["corp.example"], "mc-0.mc.ns.svc.cluster.local"),
    ],
)
def test_a_name_is_made_whole_as_the_resolver_does(name: str, search: list[str], whole: str) -> None:
    assert full_name(name, search, 5) == whole


@pytest.mark.parametrize("name", ["mc-0.mc", "mc-0.mc."])
def test_a_question_is_a_dns_message(name: str) -> None:
    plain = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + NAME + struct.pack("!HH", 65280, 1)
    assert question(7, name, 65280, 0) == plain
    extra = b"\0" + struct.pack("!HHIH", 41, 1232, DNSSEC_OK, 0)
    with_both = struct.pack("!6H", 7, 0x0110, 1, 0, 0, 1) + plain[12:] + extra
    assert question(7, name, 65280, DNSSEC_OK | NO_CHECKS) == with_both


def test_addresses_are_read_from_an_answer() -> None:
    alias = record(5, b"\5other\xc0\x11")
    found = [record(1, bytes([10, 0, 0, 7]), b"\5other\xc0\x11"), record(28, bytes(15) + b"\1")]
    assert answer(message(0, alias, *found, after=record(1, bytes(4)))) == (0, ["10.0.0.7", "::1"])
    assert answer(message(3)) == (3, []), "there is no such name"
    assert answer(message(0)) == (0, []), "there is, but not of this type"
