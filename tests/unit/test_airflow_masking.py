"""Values of secret_env are found in a job's output, in the forms and pieces in which programs write them."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import shlex
import urllib.parse

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from airflow_provider_flux.masking import Masker
from airflow_provider_flux.output import MAX_LOGGED, OutputError, OutputLog, to_xcom
from airflow_provider_flux.sealing import Kept, seal, unseal

VALUE = "pass word/with \"quotes\" & 'more' \\ $d\u00e9j\u00e0+%~\U0001f511?x=1"
BODY = [base64.b64encode(hashlib.sha384(b"%d" % line).digest()).decode() for line in range(9)]
KEY = "\n".join(["-----BEGIN KEY-----", *BODY, "-----END KEY-----", ""])
_VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=5, max_size=30)


def written(value: str) -> dict[str, str]:
    return {
        "plain": value,
        "url": urllib.parse.quote(value, safe=""),
        "path of a url": urllib.parse.quote(value),
        "form": urllib.parse.quote_plus(value),
        "lower case url": urllib.parse.quote(value, safe="").lower() if value.islower() else value,
        "json": json.dumps(value),
        "json within json": json.dumps(json.dumps(value)),
        "json in utf-8": json.dumps(value, ensure_ascii=False),
        "python": repr(value),
        "python, ascii": ascii(value),
        "bytes of python": repr(value.encode()),
        "shell": shlex.quote(value),
        "html": html.escape(value),
        "base64": base64.b64encode(value.encode()).decode(),
        "base64 for urls": base64.urlsafe_b64encode(value.encode()).decode(),
        "hex": value.encode().hex(),
        "HEX": value.encode().hex().upper(),
    }


@pytest.mark.parametrize("form", written(VALUE))
def test_each_form_is_masked_wholly(form: str) -> None:
    text = written(VALUE)[form]
    quotes = "\"'b\\"
    assert Masker([VALUE]).text(f"<{text}>").replace("***", "").strip("<>").strip(quotes) == ""


@given(_VALUES, st.sampled_from(list(written("x"))), st.binary(max_size=5), st.binary(max_size=5))
def test_any_value_is_masked_in_any_form(value: str, form: str, before: bytes, after: bytes) -> None:
    assume(len(value.strip()) >= 5)
    text = written(value.strip())[form].encode()
    surrounded = before.hex().encode() + b" " + text + b" " + after.hex().encode()
    assert text not in Masker([value]).line(surrounded)


@given(_VALUES, st.binary(max_size=40), st.binary(max_size=40))
@example("00000", b"\0\0", b"")
def test_base64_of_more_than_the_value_shows_nothing_of_it(value: str, before: bytes, after: bytes) -> None:
    assume(len(value.strip()) >= 5)
    data = value.encode()
    line = base64.b64encode(before + data + after)
    shown = Masker([value]).line(line)
    assert b"***" in shown
    head, tail = shown.split(b"***")[0], shown.split(b"***")[-1]
    assert line.startswith(head) and len(head) * 6 // 8 <= len(before)
    assert line.endswith(tail) and len(tail.rstrip(b"=")) * 6 // 8 <= len(after)


def test_each_line_of_a_value_is_masked_by_itself_and_so_are_pieces_of_wrapped_lines() -> None:
    masker = Masker([KEY])
    for text in (KEY, KEY.replace("\n", " "), KEY.replace("\n", "\r\n"), json.dumps({"key": KEY})):
        shown = masker.text(text)
        assert not [line for line in BODY if line[:8] in shown or line[-8:] in shown]
    wrapped = base64.encodebytes(b"prefix " + KEY.encode() + b" suffix").splitlines()
    assert all(masker.line(line) == b"***" for line in wrapped[1:-2])
    for width in (8, 20, 33):
        folded = [BODY[0][at : at + width] for at in range(0, len(BODY[0]) - 8, width)]
        assert {masker.text(line) for line in folded} == {"***"}, width


def test_a_value_cut_by_a_line_break_is_masked_on_both_sides() -> None:
    masker = Masker(["hunter2-and-more-of-it"])
    assert masker.line(b"user: hunter2-and-") == b"user: ***"
    assert masker.line(b"more-of-it, and more") == b"***, and more"
    assert masker.line(b"  er2-and-more") == b"***"


def test_short_values_are_masked_as_words_and_the_shortest_are_no_secrets() -> None:
    masker = Masker(["1234", "1", "", "  "])
    assert masker.line(b"pin 1234, account 912345, 1 try") == b"pin ***, account 912345, 1 try"
    assert Masker([""]).line(b"as it is") == b"as it is"


def test_the_longer_one_of_two_values_is_masked_wholly() -> None:
    assert Masker(["secret", "secret-and-more"]).line(b"a secret-and-more, a secret") == b"a ***, a ***"


def test_bytes_that_are_no_text_are_masked_too() -> None:
    value = b"caf\xe9-secret".decode("utf-8", "surrogateescape")
    assert Masker([value]).line(b"is caf\xe9-secret.") == b"is ***."
    assert Masker(["half \ud83d of one"]).line(b"nothing here") == b"nothing here"


def test_many_backslashes_cost_no_time() -> None:
    masker = Masker(["\\" * 30 + "end" + "\\" * 30])
    assert masker.line(b"\\" * 3000) == b"***" or masker.line(b"x" + b"\\" * 3000)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("'" * 40 + "Z", "'\\''" * 300),
        ("'" * 40 + "Z", "'\"'\"'" * 300),
        ("'\"" * 20 + "Z", "'\"" * 600),
        ("'\\" * 20 + "Z", "'\\" * 600),
        ("\\!" * 16 + "Z", "\\\\\\!" * 300),
        ('\\"' * 16 + "Z", '\\\\\\"' * 300),
        ("\\\u00e9" * 16 + "Z", "\\\\\\\u00e9" * 300),
        ("\\%" * 16 + "Z", "\\%" * 300),
        ("% " * 16 + "Z", "%25+" * 300),
        ("&'" * 16 + "Z", "&#x27;" * 300),
    ],
)
def test_no_run_of_marks_can_be_shared_in_many_ways(value: str, text: str) -> None:
    """All ways would be tried where the value is not there, and they are more with each mark."""
    text += "-and-more"
    assert Masker([value]).line(text.encode()) == text.encode()
    for form, shown in written(value).items():
        assert Masker([value]).line(f"is {shown}.".encode()).count(b"***") == 1, form


@pytest.mark.parametrize("place", [*range(MAX_LOGGED - 60, MAX_LOGGED + 20, 7), 2 * MAX_LOGGED - 40])
@pytest.mark.parametrize("piece", [100, 4096, 3 * MAX_LOGGED])
def test_a_value_in_a_line_that_is_logged_in_pieces_is_never_cut(place: int, piece: int) -> None:
    value = "\u00fcber-secret/" + "s" * 40
    data = (b"." * place + value.encode() + b"." * MAX_LOGGED + urllib.parse.quote(value).encode()) + b"\nend\n"
    log = OutputLog(1000, masker=Masker([value]))
    lines = [line for at in range(0, len(data), piece) for line in log.feed("stderr", data[at : at + piece])]
    shown = "".join(lines)
    assert shown.count("***") == 2
    assert shown.replace("***", "") == "." * (place + MAX_LOGGED) + "end"
    assert max(map(len, lines)) <= MAX_LOGGED


def test_what_would_hold_a_secret_is_no_xcom_and_neither_is_it_in_what_is_told_of_it() -> None:
    log = OutputLog(1000, masker=Masker(["hunter2-and-more"]))
    assert log.feed("stdout", b'{"url": "s3://hunter2-and-more@x"}\n') == ['{"url": "s3://***@x"}']
    assert log.tail == ['{"url": "s3://***@x"}']
    assert log.result is not None and log.result.masked and "hunter2" not in log.result.text
    for kind in ("json", "last_line"):
        with pytest.raises(OutputError, match=r"holds a value of secret_env.*result='none'") as told:
            to_xcom(log.result, kind, 1000)
        assert "hunter2" not in str(told.value)
    assert to_xcom(log.result, "none", 1000) is None


def test_a_marked_result_is_found_behind_a_long_line_also_where_it_is_masked() -> None:
    for masker in (None, Masker(["hunter2-and-more"])):
        log = OutputLog(1000, marker="MARK:", masker=masker)
        assert "".join(log.feed("stdout", b"x" * (MAX_LOGGED + 99) + b"MARK:7\n")) == "x" * (MAX_LOGGED + 99)
        assert log.result is not None and log.result.text == "7"


def test_sealed_values_are_opened_by_their_key_only() -> None:
    sealed, key = seal([VALUE, KEY])
    assert unseal(sealed, key) == [VALUE, KEY]
    assert unseal(sealed, "") is None
    assert unseal(sealed, seal(["other"])[1]) is None
    assert VALUE not in sealed and key not in sealed
    assert seal([]) == ("", "") and unseal("", "") == []


def test_what_is_kept_with_a_job_reads_as_it_was_written() -> None:
    for kept in (Kept(2), Kept(1, "11,0,0"), Kept(3, "1,2,3", "a_key-="), Kept(3, "1,2,3", "", "r")):
        assert Kept.parse(str(kept)) == kept
    assert Kept.parse("4:1,2,3") == Kept(4, "1,2,3")
    assert Kept.parse(None) is None and Kept.parse("") is None
