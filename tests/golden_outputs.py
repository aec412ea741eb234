"""What every stage of the web pipeline is and does on the records of golden/input, and how that is compared.

`observe` runs the pipelines and describes each stage: identity, tallies, reasons, and one hash a column of the rows
themselves. Parquet bytes are not looked at, so that another pyarrow is no failure. tests/golden_compare.py says what
differs from golden/stages.json (tests/test_golden.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mixtures
import numpy as np
import pyarrow as pa
import reasonings
import solving
import web
from clip_mixtures import spoken_steps
from speech import parquet_of, run
from strange_server import strange

from gristmill.lake.accounts.balance import total
from gristmill.lake.accounts.receipt import Receipt, canonical
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_object, read_refs, read_table
from gristmill.lake.store.opening import open_store
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.instruct import InstructConfig
from gristmill.pipelines.speech import SpeechConfig
from gristmill.pipelines.tokenizer import TokenizerConfig
from gristmill.pipelines.vision import VisionConfig
from gristmill.stages.core.work import Stage, Work
from gristmill.stages.run.runner import Done, Runner

GOLDEN = Path(__file__).parent / "golden"
FILE = GOLDEN / "stages.json"
# Several chunks a file and several shards, though the files are tiny; 2 of 26 records are damaged.
RECIPE = {
    "scan": {"chunk_bytes": 3000},
    "extract": {"seconds_per_record": None},  # in this process, where tests plant changes
    "shards": {"target_bytes": 1200},
    "max_quarantine_rate": 0.5,
}


class Recorder(Runner):
    """A runner in this process that remembers what each stage answered."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, workers=0)
        self.seen: list[tuple[str, Stage, list[Receipt]]] = []

    def map(self, title: str, works: Iterable[Work]) -> list[Receipt]:
        todo = list(works)
        receipts = super().map(title, todo)
        if todo:
            self.seen.append((title, todo[0].stage, receipts))
        return receipts

    def stream(self, title: str, works: Iterable[Work | None], ahead: int | None = None) -> Iterator[Done]:
        by_stage: dict[str, tuple[Stage, list[Receipt]]] = {}
        for done in super().stream(title, works, ahead):
            by_stage.setdefault(done.work.stage.name, (done.work.stage, []))[1].append(done.receipt)
            yield done
        self.seen += [(f"{title}, {name}", stage, receipts) for name, (stage, receipts) in by_stage.items()]


def observe(lake: Path) -> dict[str, Any]:
    """What every stage is and did, as stages.json has it."""
    files = sorted((GOLDEN / "input").iterdir())
    recorder = Recorder(open_store(str(lake)))
    run_pipeline(web.config(files, **RECIPE), recorder.store, recorder)
    return {
        "format": 1,
        "inputs": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        "stages": _stages(recorder, "")
        | _stages(increments(files, lake.with_name("nights")), "night: ")
        | language_first(files, lake.with_name("first"))
        | mixture(lake.with_name("mixed"))
        | vision(lake.with_name("pictures"))
        | clips(lake.with_name("clips"))
        | speech(lake.with_name("speech"))
        | reasoning(lake.with_name("reasoning")),
    }


def language_first(files: Sequence[Path], lake: Path) -> dict[str, Any]:
    """Pages that are dropped for their language before they are extracted; these are short."""
    recorder = Recorder(open_store(str(lake)))
    extract = {**RECIPE["extract"], "language_first": {"min_bytes": 100}}
    run_pipeline(web.config(files, **{**RECIPE, "extract": extract}), recorder.store, recorder)
    return {"language first: extract": _stages(recorder, "")["extract"]}


def reasoning(lake: Path) -> dict[str, Any]:
    """Problems whose samples a server draws, the same on every machine: in waves, judged, settled, selected, paired."""
    recorder = Recorder(open_store(str(lake)))
    rows: list[Any] = [reasonings.problem(number) for number in range(8)]
    file = reasonings.lines(lake.with_name("problems.jsonl"), [*rows, rows[3], {"question": "No answer?"}, b"no line"])
    recipe = {**solving.RECIPE, "pairs": True, "select": {"per_problem": 1}, "max_quarantine_rate": 0.5}
    with strange(solving.answers) as server:
        run = {"hosts": {"endpoint": {"url": server.url, "key_env": ""}}}
        run_pipeline(reasonings.config([file], run=run, **recipe), recorder.store, recorder)
    observed = _stages(recorder, "reasoning: ")
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
    return _stages(recorder, "speech: ") | {"speech: cut": _stages(cutting, "")["cut"]}


def vision(lake: Path) -> dict[str, Any]:
    """Records with images: good ones, copies, and those that cannot be had. PNG alone: other formats are decoded by
    libraries whose last bit may differ."""
    recorder = Recorder(open_store(str(lake)))
    image = {"seconds_per_record": None, "max_pixels": 100_000}
    recipe = {"inputs": [f"folder::{GOLDEN / 'vision' / 'lines.jsonl'}"], "image": image, "max_quarantine_rate": 0.5}
    run_pipeline(VisionConfig.model_validate({"recipe": recipe}), recorder.store, recorder)
    observed = _stages(recorder, "vision: ")
    mixtures.tokenizer(recorder.store, "vision@v1", vocab_size=380)
    mixed = Recorder(recorder.store)
    cut = {"max_crops": 4, "crop": 64, "patch": 8}
    mixtures.mix(recorder.store, {"vision@v1": 1}, mixed, images=cut, window=256, max_window_crops=10)
    return observed | {f"seen: {title}": _portable(stage) for title, stage in _stages(mixed, "").items()}


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
    return {f"heard: {title}": _portable(stage) for title, stage in _stages(mixed, "").items()}


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
        stages = _stages(recorder, f"{name}: ")
        observed |= {title: stage for title, stage in stages.items() if title.endswith(("instruct", "shards"))}
    mixtures.documents(store, "web", mixtures.texts(12, longest=60), shards=2)
    recorder = Recorder(store)
    sources = {"web@v1": 0.5, "chat@v1": 0.1, "code@v1": 0.2, "math@v1": 0.2}
    training = {"dataset": "bpe", "sources": list(sources), "train": {"vocab_size": 380}}
    run_pipeline(TokenizerConfig.model_validate({"recipe": training}), store, recorder)
    mixtures.mix(store, sources, recorder, tokens=2400, shard_tokens=1200)
    return observed | {f"mix: {title}": _portable(stage) for title, stage in _stages(recorder, "").items()}


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


def _stages(recorder: Recorder, prefix: str) -> dict[str, Any]:
    return {prefix + title: _stage(recorder.store, stage, receipts) for title, stage, receipts in recorder.seen}


def _stage(store: Store, stage: Stage, receipts: Sequence[Receipt]) -> dict[str, Any]:
    fates = ("received", "passed", "kept", "dropped", "quarantined")
    return {
        "identity": [part.model_dump(mode="json") for part in stage.identity()],
        "pieces": len(receipts),
        "tallies": {
            "came_in" if fate == "received" else fate: total(getattr(r, fate) for r in receipts).to_json()
            for fate in fates
        },
        "reasons": [r.reasons for r in receipts],
        "errors": [r.errors for r in receipts],
        "facts": [r.facts for r in receipts],
        "outputs": _outputs(store, receipts),
    }


def _outputs(store: Store, receipts: Sequence[Receipt]) -> dict[str, Any]:
    """kind -> rows, and a hash of each column: over its type and its values, in the order of the works."""
    tables: dict[str, list[pa.Table]] = {}
    for receipt in receipts:
        for ref in receipt.outputs:
            tables.setdefault(ref.kind, []).append(_READ.get(ref.kind, read_table)(store, ref))
    return {
        kind: {
            "rows": [table.num_rows for table in parts],
            "metadata": {k.decode(): v.decode() for k, v in (parts[0].schema.metadata or {}).items()},
            "columns": {field.name: _hash(field, [table[field.name] for table in parts]) for field in parts[0].schema},
        }
        for kind, parts in tables.items()
    }


def _windows(store: Store, ref: ObjectRef) -> pa.Table:
    """A tar's members; the tar's own bytes are those of `webdataset`. Of tiles and frames the shape: how a picture is
    resized differs by a level between machines, and a frame by its last bit (tests/model compares their values)."""
    with store.open(ref.key) as stream, tarfile.open(fileobj=stream) as tar:
        rows = [{"name": file.name, "data": tar.extractfile(file).read()} for file in tar]  # type: ignore[union-attr]
    for row in rows:
        if row["name"].endswith((".tiles.npy", ".mel.npy")):
            row["data"] = str(np.load(io.BytesIO(row["data"])).shape).encode()
    return pa.Table.from_pylist(rows)


def _vocabulary(store: Store, ref: ObjectRef) -> pa.Table:
    model = json.loads(store.get(ref.key))["model"]
    return pa.table({"vocab": [json.dumps(sorted(model["vocab"].items()))], "merges": [json.dumps(model["merges"])]})


def _kinds(store: Store, ref: ObjectRef) -> pa.Table:
    """Of a list of pointers what they point to; digests of Parquet are those of one pyarrow."""
    listed = sorted((item.kind, item.records) for item in read_refs(store, ref))
    return pa.table({"kind": [kind for kind, _ in listed], "records": [records for _, records in listed]})


def _work(store: Store, ref: ObjectRef) -> pa.Table:
    """Of merged receipts which stages they are of; their order is that of digests."""
    receipts = [Receipt.model_validate_json(line) for line in read_object(store, ref).splitlines()]
    return pa.table({"stage": sorted(receipt.stages[-1].name for receipt in receipts)})


_READ: dict[str, Callable[[Store, ObjectRef], pa.Table]] = {
    "pack": _windows,
    "tokenizer": _vocabulary,
    "refs": _kinds,
    "receipts": _work,
}


def _hash(field: pa.Field, parts: Sequence[pa.ChunkedArray]) -> str:
    # 4 decimals: language scores of two builds of fastText agree to there (filters/language.py)
    values = [[_shown(v) for v in part.to_pylist()] for part in parts]
    return hashlib.sha256(canonical([str(field.type), values])).hexdigest()[:16]


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(item) for item in value]
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    return round(value, 4) if isinstance(value, float) else value
