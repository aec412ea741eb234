"""How fast do texts become tokens and windows, against datatrove's tokenizer pipeline with the same tokenizer.json?

Both read the same Parquet file, encode on one thread (TOKENIZERS_PARALLELISM=false) and write what they make to disk;
every document's tokens have to be equal, so texts that spell a special token are left out: here they stay text, there
they become the token. `tokens`: datatrove's DocumentTokenizer without its shuffle against our
Tokenize with its fates, lengths and receipt. `windows`: DocumentTokenizer as people run it, which shuffles documents
and leaves cutting to the reader (every document that crosses a window's end is cut), against Tokenize, Plan, Account
and Pack, whose windows cut only what does not fit.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer
from loguru import logger

from benchmarks.harness import Arm, Differ, Figure, Places, Report, Row, Times, contest, figure
from benchmarks.material import more_texts
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.identity import record_id
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_file, put_table, scratch
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.segments import END_OF_TEXT
from gristmill.model.processing.tokenizer.bpe import SPECIAL_TOKENS, train_tokenizer
from gristmill.stages.core.shards import SCHEMA
from gristmill.stages.mix.account import account_works
from gristmill.stages.mix.mix import Plan, Share, Source, plan_work
from gristmill.stages.mix.pack import Pack, pack_works
from gristmill.stages.mix.plan_rows import PlanFacts, Tokenized
from gristmill.stages.mix.tokenize import Tokenize, forget_tokenizers, tokenize_works
from gristmill.stages.mix.windows import read_windows
from gristmill.stages.run.runner import Runner

OURS, THEIRS, PACKED, SHUFFLED = "gristmill", "datatrove", "gristmill windows", "datatrove shuffled"
WINDOW = 4096


class Material:
    """The same texts as a Parquet file and as a version, and a tokenizer trained on them."""

    def __init__(self, folder: Path, texts: Sequence[str], vocab_size: int) -> None:
        self.folder, self.texts = folder, texts
        self.data = train_tokenizer(texts, vocab_size)
        (folder / "tokenizer.json").write_bytes(self.data)
        ids = [record_id(url=None, source_key=str(i), own=b"") for i in range(len(texts))]
        self.table = pa.table({"id": ids, "text": list(texts)})
        (folder / "texts").mkdir()
        pq.write_table(self.table, folder / "texts" / "0.parquet", compression="zstd", compression_level=3)

    def fill(self, lake: Path) -> None:
        """A lake with the version `web@v1`."""
        store = open_store(str(lake))
        columns = {field.name: pa.nulls(len(self.texts), field.type) for field in SCHEMA}
        shard = put_table(
            store, "shard", pa.table(columns | dict(zip(("id", "text"), self.table.columns, strict=True)), SCHEMA)
        )
        zero, tally = Tally(), Tally.of_records(["0"] * len(self.texts), range(len(self.texts)))
        Versions(store).commit(
            Draft(
                dataset="web",
                form="documents",
                run_key="0",
                recipe={},
                stages=(),
                shards=(shard,),
                received=tally,
                kept=tally,
                dropped=zero,
                quarantined=zero,
            )
        )


Tokens = Callable[[], Counter[bytes]]
"""Digests of every document's tokens, read back when nobody is timed."""


def datatrove_tokens(material: Material, out: Path, shuffle: bool) -> Tokens:
    """Its DocumentTokenizer on the texts."""
    reader = ParquetReader(str(material.folder / "texts"))
    writer = DocumentTokenizer(
        str(out),
        tokenizer_name_or_path=str(material.folder / "tokenizer.json"),
        eos_token=END_OF_TEXT,
        shuffle_documents=shuffle,
        save_final_metadata=False,
        seed=0,
    )
    writer.run(reader.run(None))
    return lambda: _written(out, writer.token_size)


def _written(out: Path, size: int) -> Counter[bytes]:
    (tokens,), (index,) = out.glob("*.ds"), out.glob("*.ds.index")
    ids = np.frombuffer(tokens.read_bytes(), np.uint16 if size == 2 else np.uint32)
    ends = np.frombuffer(index.read_bytes(), np.uint64).astype(np.int64)
    return _digests(np.split(ids, ends[:-1]))


def _digests(documents: Sequence[np.ndarray]) -> Counter[bytes]:
    return Counter(hashlib.blake2b(ids.astype(np.int32).tobytes(), digest_size=16).digest() for ids in documents)


def tokenized(store: Store, data: bytes) -> tuple[Manifest, list[Receipt]]:
    """(the version, receipts of Tokenize)."""
    web = Versions(store).resolve("web@v1")
    with scratch() as folder:
        (folder / "tokenizer.json").write_bytes(data)
        ref = put_file(store, "tokenizer", folder / "tokenizer.json", 1)
    return web, Runner(store, workers=0).map("tokenize", tokenize_works(web, ref, Tokenize(ref.sha256)))


def our_tokens(material: Material, lake: Path) -> Tokens:
    """Tokenize on the texts."""
    store = open_store(str(lake))
    _, receipts = tokenized(store, material.data)
    return lambda: _stored(store, receipts)


def _stored(store: Store, receipts: Sequence[Receipt]) -> Counter[bytes]:
    with store.open(receipts[0].output("tokens").key) as stream:
        column = pq.read_table(stream)["ids"].combine_chunks()
    return _digests(np.split(column.values.to_numpy(), column.offsets.to_numpy()[1:-1]))


def our_windows(material: Material, lake: Path) -> Tokens:
    """The whole of a mixture of one source but for its ledger and commit."""
    store = open_store(str(lake))
    web, receipts = tokenized(store, material.data)
    runner, digest = Runner(store, workers=0), web.shards[0].sha256
    plan = Plan((Source("web@v1", Share(1.0, 1.0), False),), WINDOW, 32 << 20, None, 0)
    by_shard = [[(digest, receipts[0])]]
    planned = runner.map("plan", [plan_work(plan, [[Tokenized.of(digest, receipts[0])]])])[0]
    facts = planned.facts_as(PlanFacts)
    runner.map("account", account_works(plan, facts.sources, by_shard))
    with store.open(planned.output("plan").key) as stream:
        slices = pq.read_table(stream)
    stage = Pack(WINDOW, 0.02, 0)
    packed = runner.map("pack", pack_works(stage, planned.output("plan"), facts.shards, receipts, slices))
    return lambda: _documents(store, web, packed)


def _documents(store: Store, web: Manifest, packed: Sequence[Receipt]) -> Counter[bytes]:
    """Documents put together from windows."""
    shards = tuple(ref for r in packed for ref in (r.output("pack"), r.output("index")))
    reader = read_windows(store, web.model_copy(update={"shards": shards, "form": "windows"}))
    parts: dict[str, dict[int, np.ndarray]] = {}
    for number in range(len(reader)):
        window = reader.sample(number)
        pieces = np.split(window.arrays["input_ids"], window.arrays["cu_seqlens"][1:-1])
        for member, ids in zip(window.meta["members"], pieces, strict=True):
            parts.setdefault(member["member"], {})[member["start"]] = ids
    return _digests([np.concatenate([ids for _, ids in sorted(pieces.items())]) for pieces in parts.values()])


def same(outcomes: Mapping[str, Any]) -> None:
    """Raises Differ unless every document's tokens are the same."""
    digests = {name: tokens() for name, tokens in outcomes.items()}
    for name, tokens in digests.items():
        if tokens != digests[OURS]:
            raise Differ(f"tokenize: {name} gave other tokens for {(tokens - digests[OURS]).total()} documents")


def without_specials(texts: Sequence[str]) -> list[str]:
    """Texts in which no special token is spelled."""
    return [text for text in texts if not any(name in text for name in SPECIAL_TOKENS)]


def run(tiny: bool) -> Report:
    """The report; `tiny` on generated texts."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logger.remove()  # datatrove's
    name, everything = more_texts(tiny)
    texts = without_specials(everything)
    with scratch() as folder:
        places = Places(folder / "places")
        places.folder.mkdir()
        material = Material(folder, texts, 600 if tiny else 32_768)
        lake = places.fresh()
        material.fill(lake)

        def gristmill_arm(work: Callable[[Material, Path], Any]) -> Arm:
            at: list[Path] = []

            def prepare() -> None:
                at.append(places.fresh(lake))
                forget_tokenizers()  # what it remembers of these texts from the round before

            return Arm(lambda: work(material, at[-1]), prepare)

        def datatrove_arm(shuffle: bool) -> Arm:
            return Arm(lambda: datatrove_tokens(material, places.fresh(), shuffle))

        arms = {
            OURS: gristmill_arm(our_tokens),
            THEIRS: datatrove_arm(False),
            PACKED: gristmill_arm(our_windows),
            SHUFFLED: datatrove_arm(True),
        }
        times = contest(arms, 1 if tiny else 3, same)
    return _report(name, texts, len(everything) - len(texts), times, 1 if tiny else 3)


def _report(name: str, texts: Sequence[str], left_out: int, times: Times, rounds: int) -> Report:
    """`left_out`: how many texts spell a special token."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    checked = "every document's tokens"
    return Report(
        name="tokenize",
        data=f"{name}; {len(texts):,} texts, {size:.0f} MB",
        rounds=rounds,
        rows=(
            Row("text to tokens, against datatrove's DocumentTokenizer", times.ratio(THEIRS, OURS), "x", checked),
            Row(
                "text to packed windows, against the same with its shuffle", times.ratio(SHUFFLED, PACKED), "x", checked
            ),
            Row("text to packed windows, one core", _speed(size, times.wall[PACKED]), "MB/s", checked),
        ),
        notes=(
            "one thread each; ours writes Parquet and tars with checksums, fsync and receipts, theirs plain files",
            f"{left_out} texts are left out that spell a special token, which is text only here",
        ),
    )


def _speed(size: float, seconds: Sequence[float]) -> Figure:
    return figure([size / taken for taken in seconds])
