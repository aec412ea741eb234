"""Any filter of datatrove's by name: its verdicts are our fates, and what it raises is the record's, not the run's."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
import web
from datatrove.data import Document
from datatrove.pipeline.filters import GopherQualityFilter, RegexFilter
from pydantic import ValidationError

from gristmill import lake
from gristmill.filters.datatrove_filter import DatatroveFilter
from gristmill.filters.text.docs import Docs
from gristmill.pipelines.settings.config import BadConfig

TEXTS = ["the mill and the river have to be here " * 10, "", "too short", "mill " * 60]


def docs(texts: list[str], urls: list[str] | None = None) -> Docs:
    return Docs(pa.array(texts, pa.string()), urls=None if urls is None else pa.array(urls, pa.string()))


def test_its_reason_is_our_fate() -> None:
    oracle = GopherQualityFilter(min_doc_words=3)
    results = [oracle.filter(Document(text=text, id="0")) for text in TEXTS]
    verdicts = DatatroveFilter("GopherQualityFilter", {"min_doc_words": 3}).judge(docs(TEXTS)).to_pylist()
    assert verdicts == [None if result is True else f"datatrove.{result[1]}" for result in results]
    assert None in verdicts and len(set(verdicts)) == 3


def test_a_filter_without_reasons_drops() -> None:
    oracle = RegexFilter("short")
    assert [bool(oracle.filter(Document(text=text, id="0"))) for text in TEXTS] == [True, True, False, True]
    verdicts = DatatroveFilter("RegexFilter", {"regex_exp": "short"}).judge(docs(TEXTS)).to_pylist()
    assert verdicts == [None, None, "datatrove.dropped", None]


def test_it_sees_the_address_and_the_language(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(RegexFilter, "filter", lambda self, document: bool(seen.append(document.metadata)) or True)
    urls = pa.array(["https://a.example/1", None], pa.string())
    batch = Docs(pa.array(["x", "y"]), urls=urls, languages=pa.array(["en", "de"]))
    assert DatatroveFilter("RegexFilter", {"regex_exp": "a"}).judge(batch).to_pylist() == [None, None]
    assert seen == [{"url": "https://a.example/1", "language": "en"}, {"language": "de"}]


def test_it_may_not_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RegexFilter, "filter", lambda self, document: setattr(document, "text", "") is None)
    batch = docs(TEXTS)
    DatatroveFilter("RegexFilter", {"regex_exp": "b"}).judge(batch)
    assert batch.texts.to_pylist() == batch.strings == TEXTS


def test_what_it_raises_is_the_documents() -> None:
    # Without words it divides by their number.
    judged = DatatroveFilter("GopherQualityFilter", {"min_doc_words": 0, "min_avg_word_length": 0})
    measures = judged.measure(docs(["", "The mill that we have turns. " * 9]))
    assert measures["error"].to_pylist() == ["ZeroDivisionError", None]
    assert judged.rule(measures).to_pylist() == ["datatrove.error", None]


@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        (DatatroveFilter("NoFilter"), "there is no NoFilter; there are .*GopherQualityFilter"),
        (DatatroveFilter("LambdaFilter"), "a function cannot stand in a configuration"),
        (DatatroveFilter("SamplerFilter", {"rate": 0.5}), "not the same in another run"),
        (DatatroveFilter("C4BadWordsFilter", {"keep_fraction": 0.5}), "keep_fraction has to be 0"),
        (DatatroveFilter("GopherQualityFilter", {"min_words": 3}), "cannot be made with .*min_words"),
    ],
    ids=lambda case: case.filter if isinstance(case, DatatroveFilter) else "",
)
def test_what_cannot_be_run_is_refused_before(filter_: DatatroveFilter, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filter_.check()


def test_files_that_arguments_name_count_by_content(tmp_path) -> None:
    model = tmp_path / "quality.bin"
    leaf = DatatroveFilter("FastTextClassifierFilter", {"model_url": str(model), "keep_labels": [["good", 0.5]]})
    absent = leaf.config()
    model.write_bytes(b"one")
    first = leaf.config()
    model.write_bytes(b"two")
    assert first != leaf.config() and absent != first
    assert set(DatatroveFilter("RegexFilter", {"regex_exp": "a" * 5000}).config()) == {"filter", "args", "datatrove"}


def crawl(folder, texts: list[str]):
    path = folder / "texts.jsonl"
    rows = [{"url": f"https://a.example/{n}", "text": text} for n, text in enumerate(texts)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


OPEN = {
    "language": {"keep": [], "min_score": None},
    "gopher_quality": None,
    "minhash": None,
    "extract": {"seconds_per_record": None},
}
LINES = ["The mill by the river turns all day long.", "a b c", "The stone of the mill is made of granite."]


def test_in_a_run_a_raise_is_quarantined_and_a_verdict_dropped(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(self, document: Document) -> bool | tuple[bool, str]:
        if "stone" in document.text:
            raise KeyError(document.text)
        return (False, "Too < Few Words!") if len(document.text) < 9 else True

    monkeypatch.setattr(RegexFilter, "filter", judge)
    leaf = {"filter": "RegexFilter", "args": {"regex_exp": "c"}}
    result = web.run(tmp_path / "lake", [crawl(tmp_path, LINES)], datatrove=leaf, max_quarantine_rate=0.5, **OPEN)
    ledger = lake.open("web", lake=str(tmp_path / "lake")).ledger().to_pylist()
    fates = {row["ordinal"]: (row["fate"], row["reason"], row["value"]) for row in ledger}
    assert fates == {
        0: ("kept", None, None),
        1: ("dropped", "datatrove.too_few_words", None),
        2: ("quarantined", "datatrove.error", "KeyError"),  # and none of the document's words
    }
    assert result.manifest.quarantined.count == 1


def test_a_filter_that_there_is_not_is_a_bad_config(tmp_path) -> None:
    with pytest.raises((BadConfig, ValidationError), match="there is no NoFilter"):
        web.run(tmp_path / "lake", [crawl(tmp_path, LINES)], datatrove={"filter": "NoFilter"}, **OPEN)
