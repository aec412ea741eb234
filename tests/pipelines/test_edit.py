"""Edits in the web pipeline: what is shipped, what the ledger says of it, and that nothing tells what was taken out."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import forget_lake
import pytest
import reports
import web

from gristmill import lake
from gristmill.lake.query.why import why
from gristmill.lake.store.objects import read_refs, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.stages.run.unfinished import Incomplete
from gristmill.stages.text.edit import EditTexts

EMAIL, PHONE, CARD, IBAN = (
    "jane.roe@mail.example",
    "+44 20 7946 0018",
    "4111 1111 1111 1111",
    "DE89 3704 0044 0532 0130 00",
)
PLANTED = (EMAIL, PHONE, CARD, IBAN)
PROSE = (
    "The miller took the grain that we brought to the mill, and ground it with a stone of granite. "
    "He said that the river had been low for weeks, and that the wheel would not turn before the rain. "
    "So we waited at the inn, and talked with the people who had come from the hills with their carts. "
    "In the evening the rain came, and with it the sound of the wheel. "
)
MENU = "Home | Shop | Contact\n"
OFF: dict[str, Any] = {"minhash": None, "extract": {"seconds_per_record": None}}


def page(name: str, text: str, **row: Any) -> dict[str, Any]:
    return {"url": f"https://mill.example/{name}", "text": text, **row}


KEPT = page(
    "kept", f"{MENU}{PROSE * 2}Write to {EMAIL} or call {PHONE}.\nPay with {CARD} or to {IBAN}, says the miller.\n"
)
COPY = page("copy", f"{PROSE * 2}Write to a.b@c.example or call +44 20 7946 0019.\nPay with 5555 5555 5555 4444 or to "
            "GB29 NWBK 6016 1331 9268 19, says the miller.\n")  # fmt: skip
PLAIN = page("plain", "A page without any. " + PROSE)
SHORT = page("short", f"Too short: write to {EMAIL}, call {PHONE}, pay with {CARD} or to {IBAN}.")
FRENCH = page("french", f"Le meunier a pris le grain et l'a moulu, écrivez à {EMAIL} ou appelez le {PHONE}. " * 5)
MAIL = page("mail", f"{PROSE} Write to the inn as well, which is at {EMAIL} for those who come.")
PAGES = [KEPT, COPY, PLAIN, SHORT, FRENCH]
BROKEN = '{"url": "https://mill.example/broken", "text": "' + " ".join(PLANTED) + "\n"


def crawl(path: Path, pages: list[dict[str, Any]], broken: str = "") -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in pages) + broken)
    return path


def ledger(folder: Path, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """URL path -> its row: by the ordinal, which is the number of the page."""
    store = open_store(str(folder))
    rows = [row for ref in manifest.fates for row in read_table(store, ref).to_pylist()]
    names = [row["url"].rsplit("/", 1)[1] for row in PAGES] + ["broken"]
    return {names[row["ordinal"]]: row for row in rows}


def texts(folder: Path, ref: str = "web") -> dict[str, str]:
    rows = lake.open(ref, lake=str(folder)).to_arrow().select(["url", "text"]).to_pylist()
    return {row["url"].rsplit("/", 1)[1]: row["text"] for row in rows}


def test_personal_data_becomes_placeholders_before_duplicates_are_compared(tmp_path: Path) -> None:
    inputs = [crawl(tmp_path / "pages.jsonl", PAGES)]
    manifest = web.run(tmp_path / "lake", inputs, pii={}, c4_lines={}, **OFF).manifest
    shipped = texts(tmp_path / "lake")
    expected = f"{PROSE * 2}Write to <email> or call <phone>.\nPay with <card> or to <iban>, says the miller."
    # Of the two pages that differ in personal data alone, one is left.
    assert sorted(shipped.values()) == sorted([expected, PLAIN["text"].strip()])
    rows = ledger(tmp_path / "lake", manifest)
    winner, loser = sorted(("kept", "copy"), key=lambda name: rows[name]["fate"], reverse=True)
    assert rows[loser]["reason"] == "exact.duplicate" and rows[loser]["survivor"] == rows[winner]["id"]
    removed = "c4_lines: lines 1; " if winner == "kept" else "c4_lines: within lines; "  # a line break at the end
    assert rows[winner]["value"] == removed + "pii: email 1, iban 1, card 1, phone 1"
    assert rows["plain"]["fate"] == "kept" and rows["plain"]["value"] == "c4_lines: within lines"
    assert manifest.statistics["edits"] == {
        "c4_lines.lines": 1, "pii.email": 2, "pii.iban": 2, "pii.card": 2, "pii.ip": 0, "pii.phone": 2
    }  # fmt: skip
    dropped = {row.stage: dict(row.dropped) for row in manifest.funnel}
    assert list(dropped)[2:] == ["language", "gopher_quality", "c4_lines", "pii", "exact"]
    (story,) = why(Versions(open_store(str(tmp_path / "lake"))), f"https://mill.example/{winner}").stories
    assert "email 1, iban 1" in str(story)


def test_nothing_tells_what_was_taken_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Planted in a page that is kept, one that is too short, one in another language and one that cannot be read."""
    caplog.set_level(logging.DEBUG)
    folder = tmp_path / "lake"
    inputs = [crawl(tmp_path / "pages.jsonl", PAGES, BROKEN)]
    recipe = {**OFF, "max_quarantine_rate": 1.0, "language": {"keep": ["en"]}}
    manifest = web.run(folder, inputs, pii={}, gopher_quality={"min_words": 30}, **recipe).manifest
    rows = ledger(folder, manifest)
    fates = {name: row["fate"] for name, row in rows.items()}
    assert fates["short"] == fates["french"] == "dropped" and fates["broken"] == "quarantined"
    store = open_store(str(folder))
    written = {
        "ledger": json.dumps(list(rows.values())),
        "manifest": manifest.model_dump_json(),
        "logs": caplog.text,
        "report": reports.words(reports.report(store, tmp_path, "web@v1")),
        "shards": json.dumps(texts(folder)),
        "verdicts": "".join(str(read_table(store, ref).to_pylist()) for ref in measures(store, manifest)),
    }
    for where, content in written.items():
        assert [value for value in PLANTED if value in content] == [], where
    assert "<email>" in written["shards"]


def measures(store: Any, manifest: Manifest) -> list[Any]:
    refs = [ref for attached in manifest.attachments if attached.kind == "refs" for ref in read_refs(store, attached)]
    return [ref for ref in refs if ref.kind == "screened"]


def test_a_record_with_nothing_left_is_dropped_with_that_reason(tmp_path: Path) -> None:
    menu = page("menu", "The miller and the people who had come to the mill with their carts of grain\n" * 5)
    inputs = [crawl(tmp_path / "pages.jsonl", [PLAIN, menu])]
    manifest = web.run(tmp_path / "lake", inputs, c4_lines={}, **OFF).manifest
    assert list(texts(tmp_path / "lake")) == ["plain"] and manifest.dropped.count == 1
    assert {row.stage: dict(row.dropped) for row in manifest.funnel}["c4_lines"] == {"c4_lines.nothing_left": 1}


def test_survivors_are_chosen_by_a_measure_from_before_the_edits(tmp_path: Path) -> None:
    """Of two pages that are alike once edited the longer one as it was read; the edit made it the shorter one."""
    body = PROSE * 3
    longer = page("longer", "".join(f"menu item {n} of the mill\n" for n in range(40)) + body)
    shorter = page("shorter", body + "The carts were full of flour.")
    inputs = [crawl(tmp_path / "pages.jsonl", [longer, shorter])]
    recipe = {"c4_lines": {}, "extract": OFF["extract"]}
    web.run(tmp_path / "a", inputs, survivor=["gopher_quality.n_words"], **recipe)
    web.run(tmp_path / "b", inputs, **recipe)
    assert (list(texts(tmp_path / "a")), list(texts(tmp_path / "b"))) == (["longer"], ["shorter"])


def test_increments_compare_what_was_shipped_and_count_all_edits(tmp_path: Path) -> None:
    folder, recipe = tmp_path / "lake", {"pii": {}, "extends": "web", **OFF}
    first, second = crawl(tmp_path / "1.jsonl", [KEPT, PLAIN]), crawl(tmp_path / "2.jsonl", [COPY, SHORT])
    before = web.run(folder, [first], **recipe).manifest
    after = web.run(folder, [first, second], **recipe).manifest
    assert before.statistics["edits"]["pii.email"] == 1 == after.statistics["edits"]["pii.email"] - 1
    menu = MENU + PROSE  # the copy has no menu, so it is another text
    assert len(texts(folder)) == 3 and all("<email>" in text for name, text in texts(folder).items() if name != "plain")
    third = crawl(tmp_path / "3.jsonl", [page("again", COPY["text"].replace("a.b@c", "d.e@f"))])
    assert menu in KEPT["text"]
    grown = web.run(folder, [first, second, third], **recipe).manifest
    assert len(texts(folder)) == 3 and grown.dropped.count == after.dropped.count + 1


def test_a_takedown_takes_its_edits_from_the_sums(tmp_path: Path) -> None:
    folder, recipe = tmp_path / "lake", {"pii": {}, "c4_lines": {}, "extends": "web", **OFF}
    first, second = crawl(tmp_path / "1.jsonl", [KEPT, PLAIN]), crawl(tmp_path / "2.jsonl", [MAIL])
    web.run(folder, [first], **recipe)
    grown = web.run(folder, [first, second], **recipe).manifest
    assert grown.statistics["edits"]["c4_lines.lines"] == 1 and grown.statistics["edits"]["pii.email"] == 2
    store = open_store(str(folder))
    for name, emails, lines in (("mail", 1, 1), ("plain", 1, 1), ("kept", 0, 0)):
        forget_lake.do(store, Suppression.of(urls=[f"https://mill.example/{name}"]))
        left = Versions(store).resolve("web").statistics["edits"]
        assert (left["pii.email"], left["c4_lines.lines"]) == (emails, lines), name
    assert set(left.values()) == {0} and left.keys() == grown.statistics["edits"].keys()
    again = web.run(
        folder, [first, second, crawl(tmp_path / "3.jsonl", [page("new", MAIL["text"] + " More.")])], **recipe
    )
    assert again.manifest.statistics["edits"]["pii.email"] == 1


def test_a_killed_edit_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [crawl(tmp_path / "1.jsonl", [KEPT, PLAIN]), crawl(tmp_path / "2.jsonl", [COPY, SHORT])]
    recipe = {"pii": {}, "c4_lines": {}, **OFF}
    whole = web.run(tmp_path / "whole", inputs, **recipe).manifest
    run, done = EditTexts.run, []

    def killed(self: EditTexts, store: Any, work: Any) -> Any:
        if done:
            raise OSError("killed")
        done.append(work.label)
        return run(self, store, work)

    with monkeypatch.context() as patch:
        patch.setattr(EditTexts, "run", killed)
        with pytest.raises(Incomplete):
            web.run(tmp_path / "lake", inputs, **recipe)
    again: list[str] = []
    monkeypatch.setattr(EditTexts, "run", lambda self, store, work: again.append(work.label) or run(self, store, work))
    assert web.run(tmp_path / "lake", inputs, **recipe).manifest.digest == whole.digest
    assert len(done) == len(again) == 1 and done != again  # what was done was not done again


def test_a_recipe_without_edits_is_what_it_was_before_there_were_any() -> None:
    identity = web.config([]).recipe.identity()
    assert "pii" not in identity and "c4_lines" not in identity
    assert web.config([], pii={}).recipe.identity()["pii"] == {"kinds": ["email", "iban", "card", "ip", "phone"]}
