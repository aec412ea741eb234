"""What a quality classifier is worth on documents that people labelled: `python tests/learn_quality.py`.

Trained on the real pages beside the checkout alone (../shared/data), with no label in sight: positives are the main
text of pages and the documents of filtered corpora, negatives what the same pages have around their text (menus,
teasers, notices), and raw crawls. Judged by 254 crawl documents of DCLM with the majority of human labels, of which
nothing is trained on, nor what shares 13 words with one. What has to be beaten is the length of a text.

One half of the labelled documents (by hash) chose the number of epochs; the other half chose nothing. Prints a table,
writes all as JSON with `--out`, and ends with exit code 1 if the intervals of what the model has over length reach 0.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding
from rich.console import Console

from gristmill.filters.language import LanguageFilter
from gristmill.filters.text.docs import Docs
from gristmill.lake.store.objects import scratch
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.show.evaluation import draw_ranking
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.training.classifier import ClassifierConfig
from gristmill.stages.classify.apply import Labelled, evaluated
from gristmill.stages.run.runner import Runner

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
LABELLED = "8_quality/dclm_human_quality.jsonl"
CORPORA = ("dolma_cc_en_head-0091", "dj_redpajama-cc-2023-06-refined", "dj_redpajama-c4-refined")
EPOCHS = (5, 10, 25)
"""Those that were compared on the first half."""
LEAST_WORDS = 20


def sides(shared: Path) -> dict[str, list[str]]:
    """Side -> English texts of at least LEAST_WORDS words, each once."""
    gold = {}
    for line in (shared / "2_pages" / "pages.gold.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        gold[row["url"]] = row["main_text"] or ""
    positives, negatives = list(gold.values()), list[str]()
    for name in CORPORA:
        lines = (shared / "8_quality" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        positives += [json.loads(line)["text"] for line in lines]
    for url, html in _pages(shared / "2_pages" / "pages.warc.gz"):
        main = extract_plain_text(html, main_content=True)
        positives.append(main)
        negatives.append(_around(_whole(html), gold.get(url) or main))
    for path in sorted((shared / "1_crawl" / "real").iterdir()):
        if path.name.endswith((".warc", ".warc.gz")):
            negatives += [_whole(html) for _, html in _pages(path)]
    return {"positives": _english(positives), "negatives": _english(negatives)}


def _pages(path: Path) -> Iterator[tuple[str, str]]:
    """(address, HTML) of the responses of a WARC file, as far as it can be read."""
    with path.open("rb") as stream:
        try:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                if "html" in (record.http_content_type or ""):
                    body = record.reader.read()
                    address = record.headers.get("WARC-Target-URI") or ""
                    yield address, body.decode(detect_encoding(body), errors="replace")
        except (OSError, ValueError) as error:  # some of the crawls are damaged on purpose
            print(f"{path.name}: {error}", file=sys.stderr)


def _whole(html: str) -> str:
    text: str = extract_plain_text(html, main_content=False, alt_texts=False, links=False)
    return text


def _around(whole: str, main: str) -> str:
    """The lines of a page that do not begin as one of its main text does."""
    known = " ".join(main.split())
    lines = (" ".join(line.split()).strip("• ") for line in whole.splitlines())
    return "\n".join(line for line in lines if line and line[:60] not in known)


def _english(texts: Iterable[str]) -> list[str]:
    long = [text for text in dict.fromkeys(texts) if len(text.split()) >= LEAST_WORDS]
    verdicts = LanguageFilter().judge(Docs(pa.array(long, pa.string()))).to_pylist()
    return [text for text, verdict in zip(long, verdicts, strict=True) if verdict is None]


def halves(labelled: Path, folder: Path) -> tuple[Path, Path]:
    """The labelled documents as two files, by a hash of the text."""
    paths = folder / "first.jsonl", folder / "second.jsonl"
    parts: tuple[list[str], list[str]] = ([], [])
    for line in labelled.read_text(encoding="utf-8").splitlines():
        parts[hashlib.blake2b(json.loads(line)["text"].encode()).digest()[0] % 2].append(line)
    for path, part in zip(paths, parts, strict=True):
        path.write_text("\n".join(part) + "\n", encoding="utf-8")
    return paths


def learned(shared: Path, folder: Path) -> dict[str, Any]:
    """Of the model: what it was trained on, its ranking on all labelled documents and on each half, and the areas on
    the first half of all that were compared."""
    files: dict[str, list[str]] = {}
    for side, texts in sides(shared).items():
        path = folder / f"{side}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        files[side] = [str(path)]
    labelled = shared / LABELLED
    first, second = halves(labelled, folder)
    store = open_store(str(folder / "lake"))
    runner = Runner(store, workers=0)
    compared: dict[int, float] = {}
    for epochs in EPOCHS:
        recipe = {**files, "held_out": [str(labelled)], "train": {"fast_text": {"epochs": epochs}, "hold_out": 0.0}}
        config = ClassifierConfig.model_validate({"recipe": {"dataset": f"epochs-{epochs}", **recipe}})
        manifest = run_pipeline(config, store, runner).manifest
        ranked = _ranked(store, str(manifest), first)
        compared[epochs] = ranked["auc"]["value"]
    best = max(compared, key=lambda epochs: compared[epochs])
    manifest = Versions(store).manifest(f"epochs-{best}", 1)
    return {
        "name": "quality_learning",
        "data": "trained on shared real pages and crawls, judged by 254 documents with human labels",
        "epochs": best,
        "first_half_by_epochs": compared,
        "trained": manifest.statistics["classifier"],
        "model": manifest.shards[0].sha256,
        "all": _ranked(store, str(manifest), labelled),
        "first_half": _ranked(store, str(manifest), first),
        "second_half": _ranked(store, str(manifest), second),
    }


def _ranked(store: Any, model: str, labelled: Path) -> dict[str, Any]:
    asked = Labelled(files=(str(labelled),))
    ranking = evaluated(Versions(store), model, asked, label="positive", field="text")
    return {name: value for name, value in ranking.items() if name not in ("model", "sha256")}


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Train a quality classifier, and compare it with human labels.")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of real data")
    parser.add_argument("--out", type=Path, help="a JSON file for all of it")
    given = parser.parse_args()
    if not (given.shared / LABELLED).is_file():
        print(f"skipped: no real data in {given.shared}")
        return 0
    with scratch() as folder:
        results = learned(given.shared, folder)
    console = Console(width=120)
    for part in ("all", "first_half", "second_half"):
        draw_ranking(console, results[part], part.replace("_", " "))
    if given.out:
        given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    over, within = results["all"]["auc_over_length"], results["all"]["auc_over_length_within"]
    return 0 if min(over["low"], within["low"]) > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
