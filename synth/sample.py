"""`grist sample-data DIR`: a crawl, instruction data and what a small model learns, with the truth. Notable choices:

- no network and no foreign text: grammars in nine languages, forty invented hosts, all under example domains;
- pages and seed decide every record; the files' bytes are the same as well wherever the zlib is the same;
- what a pipeline should do with each record is written beside it (truth.jsonl), so a demo can be marked;
- damage is confined to one container and to some JSON lines.
"""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gristmill.synth.crawl.files import Container, damaged, date_of, jsonl, page_record, same_record
from gristmill.synth.crawl.pages import Page, articles, copies, crawl, heads, relatives, warc_id
from gristmill.synth.crawl.plants import benchmark
from gristmill.synth.crawl.truth import README, Truth, dump
from gristmill.synth.draw import Draw
from gristmill.synth.tasks import instructions, tools
from gristmill.synth.tasks.code import snippet
from gristmill.synth.tasks.copying import copying
from gristmill.synth.tasks.instructions import Row, RowTruth, distinct, written
from gristmill.synth.tasks.leftovers import leftover_files
from gristmill.synth.tasks.maths import problem
from gristmill.synth.tasks.refusals import refusal
from gristmill.synth.tasks.stories import story

_FOLDERS = ("crawl", "instruct", "nano", "night2", "reasoning")
_PER_PART = 600
_BENCHMARK = 40
# file below instruct/: how a row is made, how many, copies of rows, whether a line breaks off
_INSTRUCT = {
    "math": (problem, 600, 6, True),
    "code": (snippet, 400, 5, False),
    "chat": (instructions.chat, 400, 6, True),
    "tools": (tools.conversation, 200, 0, False),
    "refusals": (refusal, 150, 0, False),
}
_BROKEN = {  # how a broken row is made, the faults, how many of each
    "chat": (instructions.broken_chat, tuple(instructions.BROKEN), 4),
    "tools": (tools.broken_call, tuple(tools.BROKEN), 1),
}
# file below nano/, and the one beside it for evaluation: how a row is made, how many rows of that one
_NANO = {"stories": (story, 400), "copying": (copying, 200)}
# files below nano/ with word problems of which the last line of the answer alone is told; rows of each
_PROBLEMS = ("problems", "more-problems")
_PER_PROBLEMS = 1000


@dataclass(frozen=True)
class Summary:
    """What was written: file names relative to the directory, their bytes, records, and records by kind."""

    directory: Path
    files: tuple[str, ...]
    bytes: int
    records: int
    kinds: dict[str, int]


def _first_crawl(seed: int, pages: list[Page]) -> tuple[list[Container], Container]:
    """The intact files of crawl/, and the damaged one: it has articles alone, so that damage breaks no family."""
    spoiled = _alone(seed, pages)[-max(8, len(pages) // 50) :]
    used = {p.key for p in spoiled}
    rest = [p for p in pages if p.key not in used]
    count = max(2, -(-len(rest) // _PER_PART))
    size = -(-len(rest) // count)
    boxes = []
    for i in range(count):
        box = Container(f"crawl/part-{i:04d}.warc.gz", seed)
        box.add_info(date_of(0, i * size))
        for j, page in enumerate(rest[i * size : (i + 1) * size]):
            box.add_page(page, date_of(0, i * size + j))
        boxes.append(box)
    _meet_again(seed, boxes, [(j, p) for j, p in enumerate(rest[:size]) if p.truth.kind == "article"])
    bad = damaged(f"crawl/part-{count:04d}.warc.gz", seed, spoiled, len(rest))
    return boxes, bad


def _alone(seed: int, pages: list[Page]) -> list[Page]:
    """The articles that no other page is related to: heads of families stay in intact files."""
    families = {p.truth.family for p in pages}
    return [p for p in pages if p.truth.kind == "article" and warc_id(seed, p.key) not in families]


def _meet_again(seed: int, boxes: list[Container], numbered: list[tuple[int, Page]]) -> None:
    """Puts some records of the first file, byte for byte, into the last one as well."""
    for number, page in numbered[: max(2, len(numbered) // 60)]:
        ident = warc_id(seed, page.key)
        row = same_record(replace(page.truth, warc_id=ident), ident)
        boxes[-1].add(page_record(seed, page, date_of(0, number)), row)


def _second_crawl(seed: int, pages: list[Page]) -> Container:
    """A smaller crawl a month later: new articles, and old addresses again, with an edited text or the same one."""
    box = Container("night2/part-0000.warc.gz", seed)
    count = max(5, len(pages) // 10)
    lost = {p.key for p in _alone(seed, pages)[-max(8, len(pages) // 50) :]}  # they went to the damaged file
    old = [p for p in heads(pages, len(pages)) if p.truth.kind == "article" and p.key not in lost][-count:]
    met_again = []
    for i, page in enumerate(old):
        edited = i % 5 < 2  # two of five pages changed in between
        again = relatives(seed, page, 0.9, page.truth.url) if edited else copies(seed, page, "recrawl")
        met_again.append(replace(again, key=f"night2/{page.key}"))
    mixed = Draw(seed, "night2").shuffled(articles(seed, "night2", count) + met_again)
    box.add_info(date_of(1, 0))
    for j, page in enumerate(mixed):
        box.add_page(page, date_of(1, j))
    return box


def _name_heads(rows: list[Truth]) -> list[Truth]:
    """The rows with ids as WARC headers write them, and with heads named as members of their own family."""
    families = {row.family for row in rows}

    def urn(ident: str | None) -> str | None:
        return None if ident is None else f"<urn:uuid:{ident}>"

    named = []
    for row in rows:
        head = row.warc_id if row.family is None and row.warc_id in families else row.family
        if row.expected == "other":
            head = None
        named.append(replace(row, warc_id=urn(row.warc_id), family=urn(head)))
    return named


def _instruct(seed: int) -> tuple[dict[str, bytes], list[RowTruth]]:
    """The files of instruct/ and the truth about their rows; the pages have no part in it."""
    files: dict[str, bytes] = {}
    truth: list[RowTruth] = []
    for name, (make, count, twice, cut) in _INSTRUCT.items():
        rows = distinct(make, count, seed, "instruct", name)
        if name in _BROKEN:
            spoil, faults, each = _BROKEN[name]
            for what in faults:
                rows += distinct(partial(spoil, what=what), each, seed, "instruct", name, what)
        files[f"instruct/{name}.jsonl"], row_truths = written(name, rows, seed, twice, cut)
        truth += row_truths
    files["instruct/truth.jsonl"] = dump(truth)
    return files, truth


def _line(ident: str, fields: dict[str, str]) -> bytes:
    """A row of nano/, as a question with its answer and as one text."""
    text = f"{fields['question']}\n{fields['answer']}"
    return json.dumps({"id": ident, **fields, "text": text}).encode() + b"\n"


def _problem(ident: str, fields: dict[str, str]) -> bytes:
    """A story whose worked answer is kept back: `#### N`, and as its domain how many steps it takes."""
    *steps, last = fields["answer"].splitlines()
    row = {"id": ident, "question": fields["question"], "answer": last, "domain": f"{len(steps)} steps"}
    return json.dumps(row).encode() + b"\n"


def _problems(rows: list[Row]) -> dict[str, bytes]:
    """The files of these problems, with what is asked and the result alone."""
    parts = {name: rows[n * _PER_PROBLEMS : (n + 1) * _PER_PROBLEMS] for n, name in enumerate(_PROBLEMS)}
    return {
        f"nano/{name}.jsonl": b"".join(_problem(f"{name}-{i}", row.fields) for i, row in enumerate(part))
        for name, part in parts.items()
    }


def _nano(seed: int, counts: dict[str, int]) -> tuple[dict[str, bytes], Counter[str]]:
    """The files of nano/ and how many rows of each kind they have; `counts`: rows to train on, by name."""
    files: dict[str, bytes] = {}
    kinds: Counter[str] = Counter()
    for name, (make, held_out) in _NANO.items():
        for file, count, of in ((name, counts[name], False), (f"{name}-held-out", held_out, True)):
            unworked = _PER_PROBLEMS * len(_PROBLEMS) if file == "stories" else 0
            rows = distinct(partial(make, held_out=of), count + unworked, seed, "nano", file)
            if unworked:
                files |= _problems(rows[count:])
                kinds["unworked_story"] = unworked
                del rows[count:]
            files[f"nano/{file}.jsonl"] = b"".join(_line(f"{file}-{i}", row.fields) for i, row in enumerate(rows))
            kinds.update(row.kind for row in rows)
    return files, kinds


def _build(pages: int, seed: int, learnable: dict[str, int]) -> tuple[dict[str, bytes], Counter[str]]:
    problems = benchmark(_BENCHMARK, seed)
    texts = max(5, pages // 20)
    first = crawl(seed, pages - texts, problems)
    boxes, bad = _first_crawl(seed, first)
    later = _second_crawl(seed, first)
    copy_name = "night2/copy-of-part-0001.warc.gz"
    copy, copy_rows = boxes[1].recompressed(copy_name)
    extra, extra_rows = jsonl("crawl/extra.jsonl.gz", seed, texts)
    rows = _name_heads([row for box in (*boxes, bad) for row in box.rows] + extra_rows + later.rows + copy_rows)
    files = {box.name: box.data for box in (*boxes, bad)}
    files |= {"crawl/extra.jsonl.gz": extra, later.name: later.data, copy_name: copy}
    files |= {"benchmark.jsonl": dump(problems), "truth.jsonl": dump(rows)}
    files["README.md"] = README.format(pages=pages, seed=seed, damaged=bad.name).encode()
    more, truth = _instruct(seed)
    small, kinds = _nano(seed, learnable)
    chains, kinds_of_chains = leftover_files(seed)
    return files | more | small | chains, kinds + kinds_of_chains + Counter(
        [row.kind for row in rows] + [row.kind for row in truth]
    )


def _present(directory: Path) -> list[str]:
    """What lies in the folders of texts, by names below the directory."""
    return sorted(path.relative_to(directory).as_posix() for sub in _FOLDERS for path in directory.glob(f"{sub}/*"))


def _refuse_foreign(directory: Path, files: Collection[str], pages: int) -> None:
    """Raises FileExistsError for what lies there and is none of these files."""
    if foreign := sorted(set(_present(directory)) - set(files)):
        raise FileExistsError(
            f"{directory} holds {', '.join(foreign[:3])}, which this sample (pages={pages}) does not write: "
            f"choose an empty directory, or remove {', '.join(_FOLDERS)} first"
        )


def _check_counts(pages: int, learnable: dict[str, int]) -> None:
    if pages < 100:
        raise ValueError(
            f"pages={pages}: at least 100 are needed to hold every kind of record; pass --pages 100 or more"
        )
    for name, count in learnable.items():
        if count < 1:
            raise ValueError(f"{name}={count}: at least 1 row is needed; leave it out for the default")


def check_sample(
    directory: Path, *, pages: int = 3000, seed: int = 0, stories: int = 8000, copying: int = 10000
) -> None:
    """Raises what `write_sample` raises, and writes nothing. Where an earlier run left files it makes all texts, to
    know which belong there: seconds."""
    learnable = {"stories": stories, "copying": copying}
    _check_counts(pages, learnable)
    if _present(directory):
        _refuse_foreign(directory, _build(pages, seed, learnable)[0], pages)


def write_sample(
    directory: Path, *, pages: int = 3000, seed: int = 0, stories: int = 8000, copying: int = 10000
) -> Summary:
    """Writes the demo crawl, the instruction data and what a small model learns, and says what it wrote.

    Files of an earlier run are overwritten; a file in crawl/, night2/, instruct/, nano/ or reasoning/ that this run
    does not write raises FileExistsError before anything is touched. `pages` counts the first crawl's pages and texts,
    roughly; at least 100, else ValueError. `stories`, `copying`: rows to train on in nano/, 1 or more.
    """
    directory, learnable = Path(directory), {"stories": stories, "copying": copying}
    _check_counts(pages, learnable)
    files, kinds = _build(pages, seed, learnable)
    _refuse_foreign(directory, files, pages)
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    size, kinds_by_name = sum(map(len, files.values())), dict(sorted(kinds.items()))
    return Summary(directory, tuple(sorted(files)), size, kinds.total(), kinds_by_name)
