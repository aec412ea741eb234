"""What the benchmarks run on: the real samples beside the checkout, else generated ones; each says which.

Real data lies in ../shared/data and is never copied into the repository. Generated material is the sample crawl
(`synth.sample`), whose pages come from small grammars: more repetitive than the web, so it flatters memos.
"""

from __future__ import annotations

import inspect
import io
import json
import random
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from gristmill.lake.store.objects import scratch
from gristmill.model.processing.audio_file import decode_audio
from gristmill.model.processing.audio_rates import RATE
from gristmill.synth.sample import write_sample

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
PAGES = "2_pages/pages.warc.gz"
CRAWLS = (PAGES, "1_crawl/real/aut__example.warc.gz")


@dataclass(frozen=True)
class Crawls:
    """Undamaged WARC files, a gzip member a record, and where they are from."""

    source: str
    paths: tuple[Path, ...]

    def named(self, *paths: Path) -> str:
        """What a report says it ran on."""
        return f"{self.source}: {', '.join(path.name for path in paths)}"


@contextmanager
def crawls(tiny: bool) -> Iterator[Crawls]:
    """The files of `CRAWLS`, or one of the sample crawl. The first holds pages."""
    real = tuple(SHARED / name for name in CRAWLS)
    if not tiny and all(path.is_file() for path in real):
        yield Crawls("shared real data", real)
        return
    with scratch() as folder:
        write_sample(folder, pages=100 if tiny else 3000)
        yield Crawls("generated sample crawl", (folder / "crawl" / "part-0000.warc.gz",))


def texts(tiny: bool) -> tuple[str, list[str]]:
    """Where the texts are from, and the texts."""
    files = [*sorted((SHARED / "8_quality").glob("*.jsonl")), SHARED / "2_pages" / "pages.gold.jsonl"]
    written: list[str] = []
    for file in files:
        for line in file.open(encoding="utf-8") if file.is_file() else ():
            record = json.loads(line)
            if text := record.get("text") or record.get("main_text"):
                written.append(text)
    if tiny or not written:
        return "generated texts", generated_texts(20 if tiny else 400)
    return "shared real data: 8_quality, 2_pages", written


def more_texts(tiny: bool) -> tuple[str, list[str]]:
    """`texts`, problems with their solutions, sentences in 75 languages, and docstrings of the installed packages: all
    written by people, none twice."""
    where, everything = texts(tiny)
    if tiny:
        return where, everything
    if where.startswith("shared"):
        where += ", 3_math_code, 6_langid"
        for name, fields in (("gsm8k_train", ("question", "answer")), ("math_test", ("problem", "solution"))):
            lines = (SHARED / "3_math_code" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
            everything += ["\n".join(json.loads(line)[field] for field in fields) for line in lines]
        by_language: dict[str, list[str]] = {}
        for line in (SHARED / "6_langid" / "lingua_sentences.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            by_language.setdefault(row["lang"], []).append(row["text"])
        everything += ["\n".join(sentences) for sentences in by_language.values()]
    return f"{where}; docstrings", [*dict.fromkeys(everything), *docstrings(12_000_000)]


def docstrings(characters: int) -> list[str]:
    """What stands between triple quotes in the modules of this environment, a text a module; no string twice."""
    seen: set[str] = set()
    by_module: list[str] = []
    paths = sorted(Path(np.__file__).parents[1].rglob("*.py"))
    random.Random(0).shuffle(paths)
    for path in paths:
        strings = re.findall(r'"""(.{40,}?)"""', path.read_text(encoding="utf-8", errors="ignore"), re.DOTALL)
        if new := [string for string in dict.fromkeys(strings) if string not in seen]:
            seen.update(new)
            by_module.append("\n\n".join(inspect.cleandoc(string) for string in new))
            characters -= len(by_module[-1])
        if characters < 0:
            break
    return by_module


def generated_texts(count: int) -> list[str]:
    """Sentences over a vocabulary with natural text's long tail (Zipf), punctuated."""
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    known = ["the", "be", "to", "of", "and", "that", "have", "with"]
    known += ["".join(rng.choices(letters, weights=range(26, 0, -1), k=rng.randint(2, 10))) for _ in range(30_000)]
    weights = [1 / (rank + 1) for rank in range(len(known))]
    ends = [" "] * 70 + [", ", ". ", ".\n", "; ", " - ", " (sic) ", "'s ", "... "]
    drawn = (rng.choices(known, weights=weights, k=rng.randint(20, 1500)) for _ in range(count))
    return ["".join(word + rng.choice(ends) for word in text) for text in drawn]


def disguised(text: str) -> str:
    """The same words, each with its last letter under an accent, where there is such a letter."""
    accented = _accented()
    return re.sub(r"[A-Za-z]+", lambda word: word[0][:-1] + accented.get(word[0][-1], word[0][-1]), text)


@lru_cache(maxsize=1)
def _accented() -> dict[str, str]:
    forms = ((unicodedata.normalize("NFD", chr(point)), chr(point)) for point in range(0xC0, 0x2000))
    return {base[0]: char for base, char in forms if len(base) == 2 and base[0].isascii() and base[0].isalpha()}


# Speech.

CLIPS = ("lhotse__libri-1088-134315-0000.wav", "lhotse__2412-153948-0000.flac", "leopard__diarization_test.wav")


def speech(seconds: int, rate: int = RATE) -> tuple[str, np.ndarray]:
    """Where it is from, and float32 [samples]: real clips in turns; else generated, noise under a slow envelope."""
    folder, samples = SHARED / "5_audio", seconds * rate
    if not folder.is_dir():
        time = np.arange(samples) / rate
        envelope = 0.2 * np.abs(np.sin(2 * np.pi * 1.7 * time))
        return "generated noise", (envelope * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)
    clips = np.concatenate([decode_audio((folder / name).read_bytes())[0] for name in CLIPS])
    if rate != RATE:
        import torch  # takes seconds, and few benchmarks have another rate
        from torchaudio.transforms import Resample

        clips = Resample(RATE, rate)(torch.from_numpy(clips)).numpy()
    return "real speech", np.resize(clips, samples)


def flac_of(samples: np.ndarray, rate: int) -> bytes:
    """As corpora are stored."""
    target = io.BytesIO()
    soundfile.write(target, samples, rate, format="FLAC")
    return target.getvalue()
