"""What tests of reading along share: files of every form, an extraction that notes what it judges, and runs on them."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from warc_files import arc_record, gz, http, line, members, page, record, zst

from gristmill.lake.accounts.receipt import read_receipt
from gristmill.lake.store.base import Store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.pipelines.frame.inputs import allowed_works
from gristmill.stages.containers import Item
from gristmill.stages.read.along import ReadAlong
from gristmill.stages.read.inputs import scan_inputs
from gristmill.stages.read.listing import Listing
from gristmill.stages.read.reading import ReadStage
from gristmill.stages.read.scan import Alongside, Scan
from gristmill.stages.run.runner import Runner
from gristmill.stages.text.extract import Extract, Text

NOTHING = Suppression()
SCAN = Scan(chunk_bytes=20_000)
TEXT = "The lighthouse keeper climbed the stair, and the wind was with him when he came to the lamp. " * 12
PAGES = [page(n, TEXT) if n % 5 else record(b"x", kind="request", number=n) for n in range(90)]
DAMAGED = bytearray(members(PAGES))
for at in (700, 6_000, 11_000):
    DAMAGED[at] ^= 255
FILES = {
    "a.warc.gz": members(PAGES),
    "b.warc": b"".join(PAGES),
    "c.warc.zst": members(PAGES, zst),
    "one-member.warc.gz": gz(b"".join(PAGES)),
    "d.arc.gz": members([arc_record(http(TEXT.encode()), number=n) for n in range(90)]),
    "e.jsonl": b"".join(line(text=TEXT, url=f"http://a.example/{n}") for n in range(90)),
    "f.jsonl.gz": gz(b"".join(line(text=TEXT, id=str(n)) for n in range(90))),
    "damaged.warc.gz": bytes(DAMAGED),
    "cut.warc.gz": members(PAGES)[:-90],
}


@dataclass(frozen=True)
class Noting(Extract):
    """An extraction that notes each page which it judges, wherever that is; one page kills its process, one hangs, and
    on one it fails."""

    folder: str = ""
    kills: str = ""
    hangs: str = ""
    fails: str = ""

    def judge(self, item: Item) -> Text:
        """As an extraction, after the note."""
        with (Path(self.folder) / "judged").open("a") as notes:
            notes.write(f"{item.ordinal}\n")
        if item.url == self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if item.url == self.hangs:
            re.match("(a*)*b", "a" * 100)
        if item.url == self.fails:
            raise ValueError("the stage has a defect")
        return super().judge(item)

    def judged(self) -> Counter[int]:
        """How often, by the ordinal of the record."""
        notes = Path(self.folder) / "judged"
        return Counter(int(ordinal) for ordinal in notes.read_text().split()) if notes.exists() else Counter()


def run(store: Store, path: Path, stage: ReadStage, *, along: ReadAlong | None, listed=NOTHING) -> Runner:
    """Scans and reads a file, in this process; `along`: in one pass as far as can be."""
    runner = Runner(store, workers=0)
    beside = None if along is None else lambda: Alongside(along, ())
    inputs = scan_inputs(runner, SCAN, Listing([str(path)], []), along=beside)
    runner.map(stage.name, allowed_works(runner, stage, inputs, listed, "web"))
    return runner


def contents(store: Store) -> tuple[dict[str, str], set[str]]:
    """Of a lake: work key -> identity of its receipt, and its objects by their hashes."""
    receipts = {}
    for info in store.list("receipts/"):
        receipt = read_receipt(store, info.key.split("/")[-1].removesuffix(".json"))
        assert receipt is not None
        receipts[receipt.work_key] = receipt.identity()
    return receipts, {info.key for info in store.list("objects/")}
