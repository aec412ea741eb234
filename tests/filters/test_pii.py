"""Personal data in texts: what is some, what only looks like some, and texts made to be slow. None of it is anybody's:
numbers are from ranges kept for fiction and documentation, or are computed here."""

from __future__ import annotations

import itertools
import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.filters.edits import addresses, phones
from gristmill.filters.edits.accounts import cards, ibans, luhn
from gristmill.filters.edits.pii import KINDS, Pii, personal
from gristmill.filters.text.docs import Docs

PERSONAL = [
    ("email", "ana.belen+list@mail.example.org", "Write to {} or call."),
    ("email", "jörg@müller-söhne.example", "Kontakt: {}."),
    ("email", "o'neil_7@x-y.example", "<{}>"),
    ("email", "info@example.com", "网站地图{}\n"),
    ("email", "author@uni.example", 'author_email="{}",'),
    ("email", "support@example.com", "mailto:{}?subject=x"),
    ("email", "desk (at) example (dot) org", "Mail {}, please"),
    ("email", "desk[at]example.org", "E-Mail: {}\n"),
    ("email", "desk at example dot org", "Write to {} in English."),
    ("email", "desk AT example DOT co DOT uk", "Write to {}."),
    ("ip", "8.8.4.14", "from {} on Monday"),
    ("ip", "193.0.14.129", "Host http://{}/index"),
    ("ip", "2001:4860:4860::8888", "resolver {}, second"),
    ("ip", "2A00:1450:4001:0830:0000:0000:0000:200e", "[{}]"),
    ("card", "4111 1111 1111 1111", "Visa {} until"),
    ("card", "5555555555554444", "paid with {}."),
    ("card", "3782-822463-10005", "Amex {}"),
    ("card", "2223 0031 2200 3222", "Card: {}"),
    ("card", "6011111111111117", "Discover {}\n"),
    ("iban", "DE89 3704 0044 0532 0130 00", "IBAN: {} BIC"),
    ("iban", "GB29NWBK60161331926819", "to {}."),
    ("iban", "CH93\n0076 2011 6238 5295 7", "IBAN {}"),
    ("iban", "NO93 8601 1117 947", "({})"),
    ("phone", "(212) 555-0147", "Call {} today"),
    ("phone", "212-555-0147", "{}\nwww.example.org"),
    ("phone", "212.555.0147", "at {}."),
    ("phone", "1-800-555-0199", "toll free {} in"),
    ("phone", "+1 (617) 555-0123", "USA {}; FAX"),
    ("phone", "+44 20 7946 0018", "London {}"),
    ("phone", "+49 (0)30 / 23125-0", "Telefon: {}\n"),
    ("phone", "+41 44 668 18 00", "{}\ninfo"),
    ("phone", "(+48) 22 525 80 00", "tel.: {}, faks"),
    ("phone", "+7(495) 633-5-633", "телефон: {}"),
    ("phone", "0043(0) 316/82 16 36", "Tel: {}, Fax"),
    ("phone", "01 42 68 53 00", "à Paris, {}"),
    ("phone", "0800 0158 123", "please call {} or"),
    ("phone", "03-5809-2727", "【TEL】 {}(代表)"),
    ("phone", "021-56690000", "电话：{} "),
    ("phone", "71 3480-9140", "Assinaturas: {}\n"),
    ("phone", "555-0147", "give them a call at {}."),
    ("phone", "555-0147", "contact Ms. Jones at {} ."),
    ("phone", "131 848", "by calling Quitline on {}."),
    ("phone", "713 555 0126", "{} (phone)"),
]

LOOK_ALIKES = [
    "version 4.14.0.221, v1.22.33.44, Apache/1.33.37.12 and release 10.20.30.40",
    "127.0.0.1, 192.168.1.10, 10.0.0.1, 255.255.255.0 and 256.100.10.10 are nobody's",
    "chapter 3.2.2.5 and 1.2.3.4",
    "pi is 3.14159265358979, e is 2.718281828459045 and x is 0.16666666666667",
    "ISBN 978-3-95757-708-5, ISBN-10: 0-306-40615-2, ISBN 0306406152, ISSN 0378-5955",
    "2021-04-29 17:13:04.031886+02:00, 29.04.2021 10:15, 04/29/2021 05:49, 2008-2009",
    "on 05.11.2018 16 17 and 01-02-2003 14 15, open 09.00 - 12.00 14.00",
    "order #4006381333931, invoice 20201104-0042, No. 71-10175071, PMID: 23331080",
    "GTIN 4006381333931, EAN 0012345678905, UPC 036000291452",
    "at 40.49167, -112.59083 and 20.642796,-103.302955",
    "0x1234567890, 1234567890123456, 1_000_000_000, 0b1010101010, range(1000000)",
    "call 100 000 people, 1,157,483 records, $1000 / 200 phones, € 1.234.567,89, 350 000 jobs",
    "ratio 4111 1111 1111 1112 and 1234 5678 9012 3452",
    "DE89 3704 0044 0532 0130 01, XX89 3704 0044 0532 0130 00, UN43NU6900FXZA",
    "logo@2x.png, react@16.8.0, git@github.com:user/repo.git, https://user@host.example/x, https://a.example/@user",
    "@mhoye@mastodon.example and @someone and kulinaria@home and 20 @ 5",
    "We met at noon. Look at the dot on the i. He arrived at once",
    r"23.985 \text { at } 0.7870 and (1998 + 1996)(1998 - 1996) and 199(200-199)+198(200-198)",
    "10:20:00 12:34:56:78 std::string a::b 00:1B:44:11:3A:B7 fe80::1 ::1",
    "0 1 2 4 2 5 3 6 4 7 2 4, 2-3 1-0 0-1 2-2 3-1, 101 – 102",
    "CNPJ 83.102.459/0001-23, IT 00853870210, 110-113, 96-98 63 / 91-92",
    "https://example.org/archive/20041009202820/page-0301234567.html?id=0301234567",
]


@pytest.mark.parametrize(("kind", "value", "around"), PERSONAL)
def test_personal_data_is_replaced_whole_and_nothing_else(kind: str, value: str, around: str) -> None:
    text = around.format(value)
    assert [(span.kind, text[span.start : span.end]) for span in personal(text)] == [(kind, value)]
    assert edited(text) == around.format(f"<{kind}>")


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_only_looks_like_personal_data_stays(text: str) -> None:
    assert [text[span.start : span.end] for span in personal(text)] == []


def test_numbers_of_a_list_are_found_each() -> None:
    text = "Contact: 555-0147; 555-0148, 555-0149 or 555-0150.\n"
    text += "电话：021-56690000 13900000004 021-36070000 传真：021-56690001"
    assert [text[span.start : span.end] for span in personal(text)] == re.findall(r"[\d-]{8,}", text)


def test_check_digits() -> None:
    assert luhn("4111 1111 1111 1111") and not luhn("4111 1111 1111 1121")
    assert [list(cards(text)) for text in ("4111111111111111", "9111111111111111", "411111111111")] == [
        [(0, 16)],
        [],
        [],
    ]
    german = "DE89370400440532013000"
    assert list(ibans(german)) == [(0, 22)] and not list(ibans(german + "0")) and not list(ibans(german[:-1]))
    # Every exchange of two neighbours and every other digit is noticed: that is what remainder 1 by 97 is for.
    others = [
        german[:n] + digit + german[n + 1 :] for n in range(4, 22) for digit in "0123456789" if digit != german[n]
    ]
    assert not any(list(ibans(other)) for other in others)


def test_kinds_and_counts() -> None:
    docs = Docs(pa.array(["a@b.example, c@d.example, +44 20 7946 0018", "nothing", ""]))
    done = Pii().edit(docs)
    assert done.texts.to_pylist() == ["<email>, <email>, <phone>", "nothing", ""]
    assert done.counts.to_pydict() == {
        "email": [2, 0, 0], "iban": [0] * 3, "card": [0] * 3, "ip": [0] * 3, "phone": [1, 0, 0]
    }  # fmt: skip
    only = Pii(kinds=("phone",)).edit(docs)
    assert only.texts[0].as_py() == "a@b.example, c@d.example, <phone>" and only.counts.schema.names == ["phone"]
    with pytest.raises(ValueError, match=r"kinds: address; there are email, iban, card, ip, phone"):
        Pii(kinds=("address",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name at least one"):
        Pii(kinds=())


@settings(max_examples=200, derandomize=True)
@given(st.text(alphabet="0123456789 ()+-./@:abcDE\n", max_size=80), st.sampled_from(PERSONAL))
def test_edited_texts_are_done_and_spans_are_in_order(noise: str, known: tuple[str, str, str]) -> None:
    text = f"{noise}\n\n{known[2].format(known[1])}\n\n{noise}"
    spans = personal(text)
    assert all(first.end <= second.start for first, second in itertools.pairwise(spans))
    assert all(0 <= span.start < span.end <= len(text) and span.kind in KINDS for span in spans)
    assert any(text[span.start : span.end] == known[1] for span in spans)  # whatever stands in lines apart
    assert sum(Pii().edit(Docs(pa.array([text]))).counts[kind][0].as_py() for kind in KINDS) == len(spans)


HOSTILE = ["@", "a@", "a", "1", "1 ", "12 ", "+1", "(", "0", "00 1 ", "a.", "a@b.", ":", "2001:", "DE89 ", "1-"]
HOSTILE += ["call 12345 ", "555-0147; ", " at ", "at dot ", "x@" + "a" * 62 + "."]


def test_groups_of_digits_can_be_divided_in_one_way() -> None:
    """What stands between two is never nothing: a run of digits that is no number would be tried in 11 ** 8 ways."""
    assert re.fullmatch(phones._SEPARATOR, "") is None and re.fullmatch(phones._JOIN, "") is None


@pytest.mark.parametrize("piece", HOSTILE)
def test_work_grows_as_the_text_does(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in characters that patterns are given to look at, which bounds what they can look at."""
    assert looked_at(piece * 4000, monkeypatch) <= 2.2 * looked_at(piece * 2000, monkeypatch) + 1000


def looked_at(text: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Characters handed to patterns, but for the passes over the whole text."""
    total = 0

    class Counting:
        def __init__(self, pattern: re.Pattern[str]) -> None:
            self.pattern = pattern

        def __getattr__(self, name: str):
            method = getattr(self.pattern, name)

            def call(string: str, pos: int = 0, endpos: int | None = None):
                nonlocal total
                stop = len(string) if endpos is None else endpos
                if name == "match" or name == "fullmatch":  # these look no further than their pattern is long
                    result = method(string, pos, stop)
                    total += (result.end() - pos if result else 0) + 1
                    return result
                total += stop - pos
                return method(string, pos, stop)

            return call

    with monkeypatch.context() as patched:
        for module in (addresses, phones):
            for name, pattern in vars(module).items():
                if isinstance(pattern, re.Pattern):
                    patched.setattr(module, name, Counting(pattern))
        personal(text)
    return total


def edited(text: str) -> str:
    return Pii().edit(Docs(pa.array([text]))).texts[0].as_py()
