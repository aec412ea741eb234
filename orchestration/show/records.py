"""Drawing of single records: `why`, `sample` and `similar`.

Ids, places in inputs and redacted values only: a ledger has no URL, and none is shown from it. Documents come
from shards and may hold anything; they are made harmless for the terminal, and cut unless asked for in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from gristmill.lake.query.sampling import MEDIA, Drawn, SampledRecord
from gristmill.lake.query.why import ALIKE, Answer, Story
from gristmill.orchestration.show.children import draw_children, draw_family
from gristmill.orchestration.show.tables import SHOWN, counted, draw_facts, grid, indented, ruled
from gristmill.orchestration.show.tables import where as where
from gristmill.orchestration.show.terminal import plain
from gristmill.orchestration.show.windows import marked

if TYPE_CHECKING:
    from gristmill.lake.versions.manifest import Manifest

CUT = 600
"""Characters of a document shown without --full."""
PARTS = "parts"
"""The column in which a sample says what is learned (stages.text.instruct)."""
STYLES = {"kept": "green", "dropped": "red", "quarantined": "yellow"}


@dataclass(frozen=True)
class NearDuplicate:
    """What `grist similar` answers with: a near duplicate and what became of it."""

    id: str
    similarity: float
    words: int
    fate: str | None
    reason: str | None
    survivor: str | None


def version_ranges(numbers: Sequence[int], existing: Sequence[int]) -> str:
    """`v1-v7, v9`: a range runs over versions that exist, so a gap means "not there"."""
    position = {n: i for i, n in enumerate(sorted(existing))}
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and position[n] == position[runs[-1][-1]] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(f"v{run[0]}" if len(run) == 1 else f"v{run[0]}-v{run[-1]}" for run in runs)


def draw_why(console: Console, answer: Answer) -> None:
    """`grist why`: for each record its place, and below it its fate in the versions of each dataset."""
    if answer.normalised not in (None, answer.query):
        console.print(Text(f"looked up as {plain(str(answer.normalised))}", style="dim"))
    _draw_files(console, answer)
    # A record in several datasets is described once; only its names may differ between them.
    for _, stories in groupby(sorted(answer.stories, key=_record), key=_record):
        of_record = list(stories)
        place = of_record[-1].place
        console.print(Text.assemble("record ", (place.id, "bold")))
        indented(console, Text(where(place), style="dim"))
        table = grid("", "", "", "~")
        for story in of_record:
            versions = version_ranges(story.versions, answer.searched[story.dataset])
            fate = Text(story.fate, style=STYLES.get(story.fate, ""))
            table.add_row(f"  {story.dataset}", versions, fate, _because(story))
        console.print(table)
    draw_children(console, answer)
    _draw_models(console, answer)
    _qualify(console, answer)


def _draw_files(console: Console, answer: Answer) -> None:
    """The input files that were asked for, and who read them."""
    for use in answer.files:
        console.print(Text.assemble("file ", (plain(use.names[0]) if use.names else use.digest, "bold")))
        about = f"sha256 {use.digest[:12]}, {decimal(use.bytes)}, {counted(use.records, 'record')}"
        read_by = f"{use.dataset} {version_ranges(use.versions, answer.searched[use.dataset])}"
        indented(console, Text(f"{about}, read by {read_by}", style="dim"))


def _draw_models(console: Console, answer: Answer) -> None:
    """Which models learned from these records."""
    if not answer.models:
        return
    console.print(Text("models that learned from it", style="bold"))
    table = grid("", "", "~")
    for learned in answer.models[:SHOWN]:
        table.add_row(f"  {learned.model}", Text(learned.role, style="cyan"), learned.through)
    console.print(table)
    if len(answer.models) > SHOWN:
        console.print(Text(f"  and {len(answer.models) - SHOWN:,} more (--json has all)", style="dim"))


def _record(story: Story) -> tuple[str, str, int]:
    return story.place.id, story.place.input, story.place.ordinal


def _because(story: Story) -> str:
    """Why it has its fate: reason, offending value or similarity, survivor, cluster. "" for a record simply kept."""
    parts = [story.reason or ""]
    if story.value is not None:
        what = "" if story.fate == "kept" else "similarity " if story.stage == "minhash" else "value "
        parts.append(f"{what}{plain(story.value)}")
    if story.survivor is not None:
        survivor, again = story.survivor, story.survivor.id == story.place.id
        parts.append("met before" if again else f"in favour of {survivor.id}")
        if survivor.place is None:
            parts.append("but that ledger row is not there" if again else "whose ledger row is not there")
        else:
            how = f"{survivor.fate} by {survivor.reason}" if survivor.reason else survivor.fate
            parts.append(f"({how}; {where(survivor.place)})")
    if story.cluster is not None:
        others = ", ".join(record_id for record_id in story.cluster.others if record_id != story.place.id)
        kept = " of which this one is kept" if story.cluster.survivor == story.place.id else ""
        more = story.cluster.size - 1 - len(story.cluster.others)
        parts.append(f"\ncluster of {story.cluster.size:,} near duplicates{kept}; others: {others or 'none'}")
        parts.append(f"and {more:,} more" if more else "")
    return " ".join(part for part in parts if part).strip()


def _qualify(console: Console, answer: Answer) -> None:
    """What limits an answer: versions that were withdrawn since, and those that could not be searched."""
    named = {f"{s.dataset}@v{n}" for s in answer.stories for n in s.versions}
    gone = [ref for ref in answer.withdrawn if ref in named]
    if gone:
        console.print(Text(f"withdrawn since: {', '.join(gone)}", style="yellow"))
    if answer.unreadable:
        text = f"not searched (manifest or ledger gone or damaged): {', '.join(answer.unreadable)}"
        console.print(Text(text, style="yellow"))


def draw_similar(console: Console, manifest: Manifest, similar: Sequence[NearDuplicate]) -> None:
    """`grist similar`."""
    console.print(Text(f"{counted(len(similar), 'near duplicate')} in {manifest}", style="bold"))
    table = grid("similarity>", "words>", "id", "fate~")
    for duplicate in similar:
        fate = Text(duplicate.fate or "not in the ledger", style=STYLES.get(duplicate.fate or "", ""))
        if duplicate.reason:
            fate.append(
                f" {duplicate.reason}" + (f" in favour of {duplicate.survivor}" if duplicate.survivor else ""),
                style="dim",
            )
        table.add_row(f"{duplicate.similarity:.2f}", f"{duplicate.words:,}", duplicate.id, fate)
    console.print(table)


def not_found(answer: Answer) -> str:
    """What to say when nothing was found: what was asked, what was searched, and what may be wrong."""
    searched = ", ".join(f"{name} ({counted(len(numbers), 'version')})" for name, numbers in answer.searched.items())
    lines = [f"no record of {answer.query!r} in {searched or 'this lake: it has no datasets'}"]
    prefixes = " and ".join(answer.prefixes[:ALIKE])
    if answer.normalised is None:
        lines.append(f"searched for ids that begin with {prefixes}")
    else:
        lines.append(f"normalised: {answer.normalised}")
        lines.append(f"searched for ids that begin with {prefixes} (as a URL, and as a source key)")
        if more := len(answer.prefixes) - ALIKE:
            lines.append(f"and with {more} others, for other spellings of the same URL")
        if answer.unscanned:
            lines.append(
                "one that mixes spellings is found by `grist forget --urls FILE`, which without --yes only looks"
            )
        if "://" not in answer.query:
            lines.append("a URL begins with its scheme: try https:// or http:// before it")
    if answer.unreadable:
        lines.append(f"not searched (manifest or ledger gone or damaged): {', '.join(answer.unreadable)}")
    return "\n".join(lines)


def draw_samples(console: Console, drawn: Drawn, full: bool, children: str | None = None) -> None:
    """`grist sample` of documents or samples. `full`: texts are not cut at CUT characters. `children`: the column with
    the samples of a problem, as the version's form names it."""
    console.print(
        Text(f"{len(drawn.samples)} of {counted(drawn.population, 'record')} of {drawn.version}", style="dim")
    )
    for record in drawn.samples:
        ruled(console, record.id or "no id")
        draw_facts(console, _about(record, children))
        console.print()
        if record.text is None:
            console.print(Text(f"no text: {record.why_no_text}", style="yellow"))
            continue
        text = record.text if full else record.text[:CUT]
        console.print(marked(pieces_of(record), len(text)), soft_wrap=False)
        if len(text) < len(record.text):
            console.print(Text(f"... {len(record.text):,} characters in all; --full prints them", style="dim"))
        if children is not None:
            draw_family(console, record.fields.get(children) or (), full)


def _about(record: SampledRecord, children: str | None) -> dict[str, str]:
    """What stands above a record's text: its fate, where it came from, and its columns."""
    by = f" by {record.reason}" if record.reason else ""
    value = f", value {record.value}" if record.value else ""
    place = {} if record.place is None else {"from": where(record.place)}
    fields = {k: str(v) for k, v in record.fields.items() if v is not None and k not in (PARTS, MEDIA, children)}
    for number, item in enumerate(record.fields.get(MEDIA) or (), 1):
        fields[f"{item['kind']} {number}"] = _medium(item)
    marks = {"learned": "what stands between « and »"} if PARTS in record.fields else {}
    return {"fate": f"{record.fate}{by}{value}", **place, **fields, **marks}


def _medium(item: Mapping[str, Any]) -> str:
    """A medium in words: its name, its size, and the digest by which it is asked for."""
    size = f"{item['height']:,} x {item['width']:,} pixels" if "height" in item else ""
    parts = (item.get("url"), size, decimal(item["bytes"]), f"sha256 {item['sha256']}")
    return ", ".join(plain(part) for part in parts if part)


def pieces_of(record: SampledRecord) -> list[tuple[str, bool | None]]:
    """The text of a record; of a sample with what the loss counts."""
    text, at, pieces = record.text or "", 0, list[tuple[str, bool | None]]()
    for part in record.fields.get(PARTS) or [{"length": len(text), "learn": None}]:
        pieces.append((text[at : at + part["length"]], part["learn"]))
        at += part["length"]
    return pieces
