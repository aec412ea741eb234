"""How much faster is GopherQuality than datatrove's GopherQualityFilter, with the same decisions?

Both judge the same texts in one process, in turns, so that the machine's load falls on both; CPU time, best
of the rounds. `cold`: ours with an empty memo (datatrove has none to lose). `unseen`: the memo has seen the
other half of the texts, in random order, as in the middle of a run. `warm`: it has seen these texts. Decisions and
reasons are compared before anything is printed. Run: python benchmarks/bench_gopher.py [rounds].
Texts: ../shared/data where it is, else generated ones (and it says so).
"""

from __future__ import annotations

import json
import platform
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.utils.text import split_into_parts

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from filters import words  # noqa: E402
from filters.docs import Docs  # noqa: E402
from filters.gopher import GopherQuality  # noqa: E402

REASONS = {
    "gopher_short_doc": "too_few_words",
    "gopher_long_doc": "too_many_words",
    "gopher_below_avg_threshold": "mean_word_length_low",
    "gopher_above_avg_threshold": "mean_word_length_high",
    "gopher_too_many_hashes": "too_many_hashes",
    "gopher_too_many_ellipsis": "too_many_ellipses",
    "gopher_too_many_bullets": "too_many_bullet_lines",
    "gopher_too_many_end_ellipsis": "too_many_ellipsis_lines",
    "gopher_below_alpha_threshold": "too_few_alpha_words",
    "gopher_enough_stop_words": "too_few_stop_words",
}


def load_texts() -> tuple[str, list[str]]:
    """Where the texts are from, and the texts."""
    data = ROOT / ".." / "shared" / "data"
    files = [*sorted((data / "8_quality").glob("*.jsonl")), data / "2_pages" / "pages.gold.jsonl"]
    records = [json.loads(line) for file in files if file.is_file() for line in file.open(encoding="utf-8")]
    texts = [text for text in (record.get("text") or record.get("main_text") for record in records) if text]
    return ("shared: 8_quality, 2_pages", texts) if texts else ("generated", generated_texts())


def generated_texts(count: int = 400) -> list[str]:
    """Sentences over a vocabulary with natural text's long tail (Zipf), punctuated."""
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    known = ["the", "be", "to", "of", "and", "that", "have", "with"]
    known += ["".join(rng.choices(letters, weights=range(26, 0, -1), k=rng.randint(2, 10))) for _ in range(30_000)]
    weights = [1 / (rank + 1) for rank in range(len(known))]
    ends = [" "] * 70 + [", ", ". ", ".\n", "; ", " - ", " (sic) ", "'s ", "... "]
    drawn = (rng.choices(known, weights=weights, k=rng.randint(20, 1500)) for _ in range(count))
    return ["".join(word + rng.choice(ends) for word in text) for text in drawn]


def datatrove_verdicts(texts: list[str], oracle: GopherQualityFilter) -> list[str | None]:
    split_into_parts.cache_clear()
    results = [oracle.filter(Document(text=text, id="0")) for text in texts]
    return [None if result is True else f"gopher_quality.{REASONS[result[1]]}" for result in results]


def our_verdicts(texts: list[str]) -> list[str | None]:
    return GopherQuality(languages=()).judge(Docs(pa.array(texts, pa.string()))).to_pylist()


def one_round(texts: list[str], oracle: GopherQualityFilter) -> tuple[dict[str, float], list[list[str | None]]]:
    """CPU seconds of each contestant over all texts, and the verdicts of each (the same, one hopes)."""
    seconds: dict[str, float] = {}
    verdicts: list[list[str | None]] = []

    def run(name: str, work: Callable[[], list[str | None]]) -> list[str | None]:
        start = time.process_time()
        found = work()
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - start
        return found

    verdicts.append(run("datatrove", lambda: datatrove_verdicts(texts, oracle)))
    words.english_words.cache_clear()
    verdicts.append(run("cold", lambda: our_verdicts(texts)))
    verdicts.append(run("warm", lambda: our_verdicts(texts)))
    half = len(texts) // 2
    unseen: list[str | None] = []
    for seen, new in ((texts[half:], texts[:half]), (texts[:half], texts[half:])):
        words.english_words.cache_clear()
        our_verdicts(seen)
        unseen += run("unseen", partial(our_verdicts, new))
    return seconds, [*verdicts, unseen]


def main(rounds: int) -> int:
    source, texts = load_texts()
    random.Random(0).shuffle(texts)
    oracle = GopherQualityFilter()
    datatrove_verdicts(["load the tokenizer"], oracle)
    words.english_words()
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        seconds, verdicts = one_round(texts, oracle)
        for name, value in seconds.items():
            taken.setdefault(name, []).append(value)
        for name, found in zip(("cold", "warm", "unseen"), verdicts[1:], strict=True):
            differ = [row for row in range(len(texts)) if found[row] != verdicts[0][row]]
            if differ:
                print(f"{name}: {len(differ)} of {len(texts)} verdicts are not datatrove's: {texts[differ[0]]!r}")
                return 1
    best = {name: min(values) for name, values in taken.items()}
    result = {
        "texts": {"source": source, "count": len(texts), "characters": sum(map(len, texts))},
        "kept": verdicts[0].count(None),
        "mismatches": 0,
        "rounds": rounds,
        "cpu_seconds": {name: round(value, 3) for name, value in best.items()},
        "times_datatrove": {name: round(best["datatrove"] / value, 1) for name, value in best.items()},
        "python": platform.python_version(),
    }
    (ROOT / "benchmarks" / "results").mkdir(exist_ok=True)
    (ROOT / "benchmarks" / "results" / "gopher.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
