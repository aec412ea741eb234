"""What every stage of the web pipeline is and does on the records of golden/input, and how that is compared.

`observe` runs the pipelines and describes each stage: identity, tallies, reasons, and one hash a column of the rows
themselves. Parquet bytes are not looked at, so that another pyarrow is no failure. tests/golden_compare.py says what
differs from golden/stages.json (tests/test_golden.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mixtures
import reasonings
import solving
import web
from clip_mixtures import spoken_steps
from golden_stages import Recorder, stages_of
from speech import parquet_of, run
from strange_server import strange

from gristmill.lake.store.opening import open_store
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.instruct import InstructConfig
from gristmill.pipelines.speech import SpeechConfig
from gristmill.pipelines.tokenizer import TokenizerConfig
from gristmill.pipelines.vision import VisionConfig

GOLDEN = Path(__file__).parent / "golden"
FILE = GOLDEN / "stages.json"
# Several chunks a file and several shards, though the files are tiny; 2 of 26 records are damaged.
RECIPE = {
    "scan": {"chunk_bytes": 3000},
    "extract": {"seconds_per_record": None},  # in this process, where tests plant changes
    "shards": {"target_bytes": 1200},
    "max_quarantine_rate": 0.5,
}


def observe(lake: Path) -> dict[str, Any]:
    """What every stage is and did, as stages.json has it."""
    files = sorted((GOLDEN / "input").iterdir())
    observed = observe_web(lake)
    observed["stages"] |= (
        stages_of(increments(files, lake.with_name("nights")), "night: ")
        | edits(lake.with_name("edits"))
        | language_first(files, lake.with_name("first"))
        | mixture(lake.with_name("mixed"))
        | vision(lake.with_name("pictures"))
        | clips(lake.with_name("clips"))
        | speech(lake.with_name("speech"))
        | reasoning(lake.with_name("reasoning"))
    )
    return observed


def observe_web(lake: Path) -> dict[str, Any]:
    """The same of the first of all runs, one of the web pipeline."""
    files = sorted((GOLDEN / "input").iterdir())
    recorder = Recorder(open_store(str(lake)))
    run_pipeline(web.config(files, **RECIPE), recorder.store, recorder)
    return {
        "format": 1,
        "inputs": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        "stages": stages_of(recorder, ""),
    }


def edits(lake: Path) -> dict[str, Any]:
    """Pages that are rewritten: lines and personal data go, then words that an earlier page has. And the same pages,
    where one that consists of such words is dropped."""
    shared = "The miller took the grain that we had brought, and he ground it with a stone of granite."
    own = "In the evening the rain came, and the people from the hills went home with their carts of flour."
    pages = [
        f"Home | Shop\n{own}\nWrite to jane.roe@mail.example or call +44 20 7946 0018, said he.\n{shared}",
        f"{shared}\nBut of the inn at the river we have not said a word, and will not say it here.",
        f"Once more.\n{shared}",
        "Home | Shop\nA line that ends with no mark of any kind\n",
    ]
    file = lake.with_name("edited.jsonl")
    rows = [{"url": f"https://golden.example/{n}", "text": text} for n, text in enumerate(pages)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = {"min_words_per_line": 2}
    recipe = {
        **RECIPE,
        "language": {"keep": [], "min_score": None},
        "gopher_quality": None,
        "c4_lines": lines,
        "pii": {},
    }
    observed: dict[str, Any] = {}
    for last, settings in {
        "cut runs": {"repeated": "cut", "min_words": 8},
        "judge runs": {"max_repeated": 0.5},
    }.items():
        recorder = Recorder(open_store(str(lake.with_name(f"edits {last}"))))
        substrings = {"min_tokens": 10, **settings}
        run_pipeline(web.config([file], substrings=substrings, **recipe), recorder.store, recorder)
        wanted = ("edit", "hash runs", "gather runs", "find runs", last)
        observed |= {f"edits: {title}": stage for title, stage in stages_of(recorder, "").items() if title in wanted}
    return observed


def language_first(files: Sequence[Path], lake: Path) -> dict[str, Any]:
    """Pages that are dropped for their language before they are extracted; these are short."""
    recorder = Recorder(open_store(str(lake)))
    extract = {**RECIPE["extract"], "language_first": {"min_bytes": 100}}
    run_pipeline(web.config(files, **{**RECIPE, "extract": extract}), recorder.store, recorder)
    return {"language first: extract": stages_of(recorder, "")["extract"]}


def reasoning(lake: Path) -> dict[str, Any]:
    """Problems whose samples a server draws, the same on every machine: in waves, judged, settled, selected, paired."""
    recorder = Recorder(open_store(str(lake)))
    rows: list[Any] = [reasonings.problem(number) for number in range(8)]
    file = reasonings.lines(lake.with_name("problems.jsonl"), [*rows, rows[3], {"question": "No answer?"}, b"no line"])
    recipe = {**solving.RECIPE, "pairs": True, "select": {"per_problem": 1}, "max_quarantine_rate": 0.5}
    with strange(solving.answers) as server:
        run = {"hosts": {"endpoint": {"url": server.url, "key_env": ""}}}
        run_pipeline(reasonings.config([file], run=run, **recipe), recorder.store, recorder)
    observed = stages_of(recorder, "reasoning: ")
    of_shards = [f"reasoning: {title}" for title in ("choose", "pairs", "select", "ledger")]
    return observed | {title: _portable(observed[title], "shard") for title in of_shards}


def speech(lake: Path) -> dict[str, Any]:
    """Records with clips: good ones, copies, a part of a file, and those that cannot be had; then where a file is cut.
    WAV alone, and a part at a rate that FLAC has not: what an encoder makes of a clip differs with its release."""
    store = open_store(str(lake))
    recorder, cutting = Recorder(store), Recorder(store)
    lines = {"inputs": [f"folder::{GOLDEN / 'speech' / 'lines.jsonl'}"], "max_quarantine_rate": 0.5}
    read = {"language": "en", "seconds_per_record": None}
    run_pipeline(SpeechConfig.model_validate({"recipe": {**lines, "audio": read}}), store, recorder)
    cut = {"target_seconds": 1.2, "longest_seconds": 1.5, "least_pause": 0.1, "margin": 0.05}
    unlabelled = {**lines, "dataset": "cut", "audio": {**read, "task": "unlabelled", "cut": cut}}
    run_pipeline(SpeechConfig.model_validate({"recipe": unlabelled}), store, cutting)
    return stages_of(recorder, "speech: ") | {"speech: cut": stages_of(cutting, "")["cut"]}


def vision(lake: Path) -> dict[str, Any]:
    """Records with images: good ones, copies, and those that cannot be had. PNG alone: other formats are decoded by
    libraries whose last bit may differ."""
    recorder = Recorder(open_store(str(lake)))
    image = {"seconds_per_record": None, "max_pixels": 100_000}
    recipe = {"inputs": [f"folder::{GOLDEN / 'vision' / 'lines.jsonl'}"], "image": image, "max_quarantine_rate": 0.5}
    run_pipeline(VisionConfig.model_validate({"recipe": recipe}), recorder.store, recorder)
    observed = stages_of(recorder, "vision: ")
    mixtures.tokenizer(recorder.store, "vision@v1", vocab_size=380)
    mixed = Recorder(recorder.store)
    cut = {"max_crops": 4, "crop": 64, "patch": 8}
    mixtures.mix(recorder.store, {"vision@v1": 1}, mixed, images=cut, window=256, max_window_crops=10)
    return observed | {f"seen: {title}": _portable(stage) for title, stage in stages_of(mixed, "").items()}


def clips(lake: Path) -> dict[str, Any]:
    """A mixture of clips, of rates that are taken as they are and one that is resampled; one is too long, one has no
    whole frame, one more frames than a window may. Their samples are whole numbers, the same on every machine."""
    store = open_store(str(lake))
    sizes = [(24_000, 16_000), (9_000, 8_000), (33_075, 22_050), (300, 16_000), (48_000, 16_000), (80_000, 16_000)]
    rows = [spoken_steps(number, samples, rate) for number, (samples, rate) in enumerate(sizes)]
    lake.mkdir(parents=True, exist_ok=True)
    every = {"min_seconds": 0.01, "min_peak": None, "max_silent_ratio": None, "max_clipped_ratio": None}
    run(
        store,
        [parquet_of(lake / "clips.parquet", rows)],
        clip=every,
        **dict.fromkeys(("speech_rate", "transcript", "min_similarity")),
    )
    mixtures.tokenizer(store, "speech@v1", vocab_size=380)
    mixed = Recorder(store)
    taken = {"max_seconds": 4}
    mixtures.mix(store, {"speech@v1": 1}, mixed, audio=taken, window=128, max_window_frames=250, max_waste=0.5)
    return {f"heard: {title}": _portable(stage) for title, stage in stages_of(mixed, "").items()}


def mixture(lake: Path) -> dict[str, Any]:
    """Samples of each form, a tokenizer, and both mixed with a few pages."""
    store = open_store(str(lake))
    observed: dict[str, Any] = {}
    for name, form in {"chat": "chat", "code": "code", "math": "pair"}.items():
        recorder = Recorder(store)
        instruct = {"form": form, "remove": ["<<[^<>]*>>"]}
        recipe = {"dataset": name, "inputs": [str(GOLDEN / "instruct" / f"{name}.jsonl")], "instruct": instruct}
        config = InstructConfig.model_validate({"recipe": {**recipe, "max_quarantine_rate": 0.5}})
        run_pipeline(config, store, recorder)
        stages = stages_of(recorder, f"{name}: ")
        observed |= {title: stage for title, stage in stages.items() if title.endswith(("instruct", "shards"))}
    mixtures.documents(store, "web", mixtures.texts(12, longest=60), shards=2)
    recorder = Recorder(store)
    sources = {"web@v1": 0.5, "chat@v1": 0.1, "code@v1": 0.2, "math@v1": 0.2}
    training = {"dataset": "bpe", "sources": list(sources), "train": {"vocab_size": 380}}
    run_pipeline(TokenizerConfig.model_validate({"recipe": training}), store, recorder)
    mixtures.mix(store, sources, recorder, tokens=2400, shard_tokens=1200)
    return observed | {f"mix: {title}": _portable(stage) for title, stage in stages_of(recorder, "").items()}


def _portable(stage: dict[str, Any], *more: str) -> dict[str, Any]:
    """Without what depends on the sha256 of Parquet files: with another pyarrow they are others. `more`: columns."""
    for output in stage["outputs"].values():
        output["columns"] = {k: v for k, v in output["columns"].items() if k not in ("input", "tokens", *more)}
    return {k: v for k, v in stage.items() if k not in ("tallies", "facts")}


def increments(files: Sequence[Path], lake: Path) -> Recorder:
    """The same in increments of one file; what is remembered is the last one."""
    store = open_store(str(lake))
    for n in range(1, len(files) + 1):
        recorder = Recorder(store)
        run_pipeline(web.config(files[:n], **{**RECIPE, "max_quarantine_rate": 1.0}, extends="web"), store, recorder)
    return recorder
