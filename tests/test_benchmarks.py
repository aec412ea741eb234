"""The benchmarks still run, on next to nothing, and refuse to print figures for work that is not the same."""

from __future__ import annotations

import gc
import json
import multiprocessing
import sys
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks is no installed package

from benchmarks import (  # noqa: E402
    bench_audio,
    bench_containers,
    bench_dedup,
    bench_gopher,
    bench_ledger,
    bench_pipeline,
    bench_tokenize,
    harness,
)
from benchmarks import synthetic_signatures as synthetic  # noqa: E402
from benchmarks.__main__ import NAMES, main  # noqa: E402
from benchmarks.dedup_material import JACCARDS, material  # noqa: E402
from benchmarks.harness import Arm, Differ, Figure  # noqa: E402
from benchmarks.material import crawls  # noqa: E402
from gristmill.lake.accounts.identity import url_hash  # noqa: E402
from gristmill.lake.store.opening import open_store  # noqa: E402

OWN = ("audio", "dedup_memory", "long_audio", "pack_clips", "plan", "reader", "scale", "speech", "substrings", "vision")
"""Benchmarks of which a part runs in processes of its own."""


@pytest.fixture(scope="module", autouse=True)
def forked_from_what_has_imported() -> Iterator[None]:
    """Each of those processes would import for seconds."""
    multiprocessing.set_forkserver_preload([f"benchmarks.bench_{name}" for name in OWN])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "FORKED", True)
        yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def nothing_old_is_garbage() -> None:
    """Every arm of a contest begins with a look for garbage, through all that benchmarks have imported so far."""
    gc.collect()
    gc.freeze()


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_writes_figures_that_name_no_machine(name: str, tmp_path: Path) -> None:
    assert main([name, "--tiny", "--results", str(tmp_path)]) == 0
    written = (tmp_path / f"{name}.json").read_text()
    report = json.loads(written)
    assert report["rows"] and all(row["figure"]["median"] > 0 for row in report["rows"])
    assert any(row["same"] for row in report["rows"])
    assert {"cpu", "cores", "python", "packages", "date"} == set(report["machine"])
    assert "/tmp" not in written and str(ROOT) not in written


def test_an_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["speed"])
    assert f"{', '.join(NAMES)}, and, alone, gpu" in " ".join(capsys.readouterr().err.split())


def test_a_difference_ends_the_command_without_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = bench_containers.by_fastwarc
    monkeypatch.setattr(
        bench_containers, "by_fastwarc", lambda path: [item._replace(body=item.body + b" ") for item in honest(path)]
    )
    assert main(["containers", "--tiny", "--results", str(tmp_path)]) == 1
    assert "bodies" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_record_that_a_reader_misses_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = bench_containers.by_reader
    monkeypatch.setattr(bench_containers, "by_reader", lambda path, spans: honest(path, spans)[1:])
    with pytest.raises(Differ, match="spans"):
        bench_containers.run(tiny=True)


def test_one_other_verdict_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = bench_gopher.by_ours
    monkeypatch.setattr(
        bench_gopher, "by_ours", lambda texts: [*honest(texts)[:-1], "gopher_quality.planted"] if texts else []
    )
    with pytest.raises(Differ, match="verdicts"):
        bench_gopher.run(tiny=True)


def test_a_lookup_that_tells_less_than_a_scan_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = bench_ledger.by_why
    monkeypatch.setattr(bench_ledger, "by_why", lambda versions, url: [(*honest(versions, url)[0][:-1], "planted")])
    with pytest.raises(Differ, match="against a scan"):
        bench_ledger.run(tiny=True)


@pytest.mark.parametrize(
    ("values", "error"), [(1, 2e-5), (2, 5e-6)], ids=["one value far off", "more than a thousandth off"]
)
def test_frames_of_audio_that_are_not_the_references_are_a_difference(values: int, error: float) -> None:
    frames = np.zeros((10, 100), np.float32)
    other = frames.copy()
    other.flat[0] = 5e-6
    outcomes = dict.fromkeys((bench_audio.REFERENCE, bench_audio.EXACT, bench_audio.FAST), frames)
    bench_audio.same_frames(outcomes | {bench_audio.EXACT: other})
    other.flat[:values] = error
    with pytest.raises(Differ, match="frames of exact"):
        bench_audio.same_frames(outcomes | {bench_audio.EXACT: other})


def test_clusters_and_numbers_kept_have_to_be_the_same(tmp_path: Path) -> None:
    texts = material(tiny=True, count=120).first(120).texts
    given = bench_dedup.signed_twice(texts, harness.Places(tmp_path))
    result = bench_dedup.linked(bench_dedup.Stopwatch(open_store(str(given.lake))), given.refs)
    reference = bench_dedup.datatrove.deduplicate(given.shards, given.files, bench_dedup.datatrove.GIVEN)
    outcomes = {bench_dedup.OURS: result, bench_dedup.THEIRS: reference}
    bench_dedup.check_same(outcomes)
    assert any(len(cluster) > 2 for cluster in result.clusters)
    with pytest.raises(Differ, match="number kept"):
        bench_dedup.check_same(outcomes | {bench_dedup.THEIRS: reference._replace(kept=reference.kept[1:])})
    first = result.clusters[0]
    other = next(
        number for number in range(len(texts)) if number not in {n for cluster in result.clusters for n in cluster}
    )
    result.clusters[0] = [*first[:-1], other]
    with pytest.raises(Differ, match="clusters"):
        bench_dedup.check_same(outcomes)


def test_families_are_as_similar_as_they_are_planted() -> None:
    pairs = material(tiny=True, count=3000).first(3000).pairs
    for planted in JACCARDS:
        similarities = [pair.jaccard for pair in pairs if pair.planted == planted]
        assert len(similarities) > 10 and abs(sum(similarities) / len(similarities) - planted) < 0.06


def test_the_truth_of_made_up_signatures_is_that_of_all_buckets(tmp_path: Path) -> None:
    signatures = synthetic.write(str(tmp_path / "lake"), 3000, tmp_path / "truth.npz")
    truth = synthetic.read_truth(signatures.truth)
    by_buckets = synthetic.by_all_buckets(open_store(str(tmp_path / "lake")), signatures.refs)
    assert len(truth.child) > 300
    assert [column.tolist() for column in truth] == [column.tolist() for column in by_buckets]


def test_bytes_are_counted_at_the_store(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a", b"x" * 1000)
    counting = bench_ledger.Counting(store)
    with counting.open("a") as file:
        assert isinstance(file, pa.NativeFile) and file.read_at(100, 300) == b"x" * 100
    assert len(counting.get("a")) == 1000
    assert counting.bytes == 1100


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pipelines")
    with crawls(tiny=True) as crawl:
        reference = bench_pipeline.run_datatrove(crawl.paths[0], folder, bench_pipeline.InlineResiliparse())
        yield {"ours": bench_pipeline.run_gristmill(crawl.paths[0], folder), "theirs": reference}


class Kept:
    """Texts that datatrove would have kept, each read in `charset`."""

    def __init__(self, kept: list[tuple[str, str]], charset: str = "utf-8") -> None:
        self.kept = kept
        self.charsets = {url: charset for url, _ in kept}


def test_a_page_or_a_text_that_only_one_pipeline_keeps_is_a_difference(outcomes: dict[str, Any]) -> None:
    result, kept = outcomes["ours"], outcomes["theirs"].kept
    assert bench_pipeline.differences(result, Kept(kept)) == {}
    at = next(
        n for n, (url, _) in enumerate(kept) if result.passed[url_hash(url)] == 1 and url_hash(url) in result.texts
    )
    url, text = kept[at]
    with pytest.raises(Differ, match="another reason"):
        bench_pipeline.differences(result, Kept(kept[:at] + kept[at + 1 :]))
    with pytest.raises(Differ, match="another text"):
        bench_pipeline.differences(result, Kept([*kept[:at], (url, text + "!"), *kept[at + 1 :]]))
    with pytest.raises(Differ, match="no record of ours"):
        bench_pipeline.differences(result, Kept([*kept, ("https://planted.example/", "text")]))


def test_a_page_that_only_the_language_filters_see_differently_is_reported(
    outcomes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, kept = outcomes["ours"], outcomes["theirs"].kept
    foreign = next(page for page, reason in result.reasons.items() if reason.startswith("language."))
    monkeypatch.setattr(
        bench_pipeline, "url_hash", lambda url: foreign if url == "https://planted.example/" else url_hash(url)
    )
    reasons = bench_pipeline.differences(result, Kept([*kept, ("https://planted.example/", "Ein Text.")]))
    assert list(reasons) == [foreign] and "language." in reasons[foreign]


def test_a_page_that_is_truncated_is_a_difference_that_names_what_the_ledger_says() -> None:
    page = url_hash("https://planted.example/")
    lost = {"id": page + "0" * 16, "fate": "dropped", "stage": "extract", "reason": "read.truncated"}
    result = bench_pipeline.Outcome(Path(), None, None, {})  # type: ignore[arg-type]
    vars(result).update(ledger=[lost | {"value": "WARC-Truncated: length"}], texts={})
    reference = Kept([("https://planted.example/", "text")])
    reasons = bench_pipeline.differences(result, reference)
    assert reasons == {page: "only datatrove keeps it; ours: read.truncated WARC-Truncated: length"}
    vars(result).update(reasons={page: "read.http_status 404"})
    with pytest.raises(Differ, match=r"read\.http_status 404"):
        bench_pipeline.differences(result, reference)


def test_another_text_is_explained_by_another_charset_only_where_ours_gives_our_text(outcomes: dict[str, Any]) -> None:
    result, kept = outcomes["ours"], outcomes["theirs"].kept
    at = next(
        n for n, (url, _) in enumerate(kept) if result.passed[url_hash(url)] == 1 and url_hash(url) in result.texts
    )
    url, text = kept[at]
    planted = [*kept[:at], (url, text + "!"), *kept[at + 1 :]]
    reasons = bench_pipeline.differences(result, Kept(planted, "cp1251"))
    assert reasons == {url_hash(url): "another text; ours reads utf-8, datatrove's reader cp1251"}
    texts = dict(result.texts)
    result.texts[url_hash(url)] += "?"
    with pytest.raises(Differ, match="another text"):
        bench_pipeline.differences(result, Kept(planted, "cp1251"))
    result.texts.update(texts)


def test_a_contest_checks_every_round_and_counts_all_but_the_first() -> None:
    seen: list[int] = []
    arms = {"a": Arm(lambda: seen.append(0)), "b": Arm(lambda: None, lambda: seen.append(1))}
    times = harness.contest(arms, 2, lambda outcomes: seen.append(2))
    assert seen == [0, 1, 2] * 3
    assert [len(times.cpu[name]) for name in arms] == [2, 2]


def test_a_ratio_is_taken_within_a_round() -> None:
    times = harness.Times({"a": [1.0, 8.0, 3.0], "b": [1.0, 2.0, 1.0], "c": [0.0, 2.0, 0.5]}, {}, {})
    assert times.ratio("a", "b") == Figure(3.0, 1.0, 4.0)
    assert times.ratio("a", ("b", "c")) == Figure(2.0, 1.0, 2.0)


def test_texts_that_spell_a_special_token_are_no_material_for_tokenizers():
    """Here they stay text, in datatrove they become the token: two right answers that are not the same work."""
    plain = ["a mill <|of|> grain", "<| end |>"]
    spelled = ['eos_token="<|endoftext|>"', "<|audio|>", "a<|system|>b"]
    assert bench_tokenize.without_specials([*spelled[:2], *plain, spelled[2]]) == plain
