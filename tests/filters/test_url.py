"""Rules over addresses: hosts that are blocked, numbers, words; and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import web
from hypothesis import given
from hypothesis import strategies as st

from gristmill import lake
from gristmill.filters.text.docs import Docs
from gristmill.filters.url import UrlRules
from gristmill.pipelines.settings.config import BadConfig


def judge(urls: list[str | None], **rules: object) -> list[str | None]:
    docs = Docs(pa.array(["text"] * len(urls), pa.string()), urls=pa.array(urls, pa.string()))
    return UrlRules(**rules).judge(docs).to_pylist()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://www.example.org/mill", None),
        ("http://192.0.2.7/mill", "ip_host"),
        ("http://[2001:db8::1]:8080/", "ip_host"),
        ("http://1.example.org/", None),
        ("https://freeporntube.example/", "word"),
        ("https://a.example/XXX/mill", "word"),
        ("https://a.example/%58xx-mill", "word"),
        ("https://xxxl-clothes.example/", "word"),  # parts of a host count, whatever the host meant
        ("https://a.example/xxxl-clothes", None),  # and words of a path whole
        ("https://a.example/health/sex-education", None),
        ("https://a.example/hot-sex", "soft_words"),
        ("https://casino-poker.example/", "soft_words"),
        ("https://sussex.example/essex/scunthorpe", None),
        ("https://a.example/?q=porn", None),
        ("not an address", None),
        ("http://[broken", None),
        ("", None),
        (None, None),
    ],
)
def test_an_address_has_its_reason(url: str | None, reason: str | None) -> None:
    assert judge([url]) == [None if reason is None else f"url.{reason}"]


def test_a_host_blocks_what_is_below_it(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.txt"
    hosts.write_text("# bad ones\nbad.example\n\nShop.Worse.example.  # with all below\n")
    urls = ["http://bad.example/", "http://www.bad.example/x", "http://notbad.example/", "http://worse.example/"]
    urls += ["https://user@a.shop.worse.example:99/x"]
    blocked = "url.blocked_host"
    assert judge(urls, block_lists=(str(hosts),)) == [blocked, blocked, None, None, blocked]


def test_hosts_are_the_same_in_any_spelling(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.txt"
    hosts.write_text(
        "\ufefffirst.example\n.dot.example\n*.star.example\nMüller.example\nxn--bcher-kva.example\nstraße.example\nहिन्दी.example\n"
    )
    spelled = ["first.example", "a.dot.example", "STAR.example.", "müller.example", "a.xn--mller-kva.example"]
    spelled += ["bücher.example:80", "XN--BCHER-KVA.example", "xn--strae-oqa.example", "हिन्दी.example"]
    spelled += ["strasse.example", "mueller.example", "a.org"]
    urls: list[str | None] = [f"http://{host}/" for host in spelled]
    assert judge(urls, block_lists=(str(hosts),)) == ["url.blocked_host"] * 9 + [None] * 3


@pytest.mark.parametrize("line", ["||a.example^", "0.0.0.0 a.example", "a.*.example", "http://a.example/"])
def test_a_line_that_could_never_match_is_refused(tmp_path: Path, line: str) -> None:
    hosts = tmp_path / "hosts.txt"
    hosts.write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"line 1 of .* a host is allowed"):
        UrlRules(block_lists=(str(hosts),)).check()


def test_ip_hosts_may_be_kept_and_soft_words_off() -> None:
    urls = ["http://192.0.2.7/", "http://a.example/hot-sex-teen"]
    assert judge(urls, ip_hosts=True, max_soft_words=None) == [None, None]


def test_a_threshold_is_replayed_from_stored_measures() -> None:
    urls = ["http://192.0.2.7/", "http://a.example/hot-sex-teen", "http://a.example/hot-sex", None]
    docs = Docs(pa.array(["text"] * 4), urls=pa.array(urls, pa.string()))
    tuned = UrlRules(ip_hosts=True, max_soft_words=2)
    assert tuned.rule(UrlRules().measure(docs)).to_pylist() == [None, "url.soft_words", None, None]


@given(st.lists(st.one_of(st.none(), st.text(), st.from_regex(r"https?://[^/]*/.*"))))
def test_any_address_is_judged(urls: list[str | None]) -> None:
    assert len(judge(urls)) == len(urls)


def test_block_lists_count_by_what_they_hold(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("bad.example\n")
    second.write_text("bad.example\n")
    first_rules, second_rules = UrlRules(block_lists=(str(first),)), UrlRules(block_lists=(str(second),))
    assert first_rules.config() == second_rules.config()
    second.write_text("worse.example\n")
    assert first_rules.config() != second_rules.config()
    assert judge(["http://bad.example/"], block_lists=(str(second),)) == [None]


@pytest.mark.parametrize("line", ["http://bad.example/", "bad.example:80", "two words"])
def test_a_line_that_is_no_host_is_named(tmp_path: Path, line: str) -> None:
    hosts = tmp_path / "hosts.txt"
    hosts.write_text(f"good.example\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2 of .*hosts\.txt"):
        UrlRules(block_lists=(str(hosts),)).check()


def test_a_list_is_read_once_and_again_when_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts.txt"
    hosts.write_text("bad.example\n")
    rules, reads, read_bytes = UrlRules(block_lists=(str(hosts),)), [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read_bytes(path))
    docs = Docs(pa.array(["x"]), urls=pa.array(["http://other.example/"]))
    before = rules.config()
    assert [rules.measure(docs)["blocked_host"][0].as_py() for _ in range(5)] == [None] * 5
    assert reads == [hosts]
    hosts.write_text("other.example\n")
    assert rules.measure(docs)["blocked_host"][0].as_py() == "other.example" and rules.config() != before
    assert reads == [hosts] * 2


def test_in_a_run_the_lists_decide_and_their_place_does_not(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"url": "http://bad.example/1", "text": "a"}\n{"url": "http://good.example/2", "text": "b"}\n')
    settings = {
        "language": {"keep": [], "min_score": None},
        "gopher_quality": None,
        "minhash": None,
        "extract": {"seconds_per_record": None},
    }
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("bad.example\n")
        rules = {"block_lists": [str(tmp_path / name)]}
        result = web.run(tmp_path / "lake", [texts], url=rules, **settings)
        assert result.new == (name == "a.txt")
    ledger = lake.open("web", lake=str(tmp_path / "lake")).ledger().to_pylist()
    reasons = {row["ordinal"]: (row["fate"], row["reason"], row["value"]) for row in ledger}
    assert reasons[0] == ("dropped", "url.blocked_host", "bad.example")
    assert reasons[1][0] == "kept"
    with pytest.raises(BadConfig, match=r"recipe\.url: .*nowhere"):
        web.run(tmp_path / "lake", [texts], url={"block_lists": [str(tmp_path / "nowhere.txt")]}, **settings)
