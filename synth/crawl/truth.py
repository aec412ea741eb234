"""What the generator knows about each record it wrote. Notable choices:

- a row states the fate under the default English pipeline: kept, dropped, quarantined, either
  (it hangs on a threshold or on banding) or other (no page: warcinfo, request, metadata, revisit);
- `reasons` are families of reason ("gopher_quality", or "gopher_quality.too_few_words"); any is right;
- ordinals are null in a container that is damaged, whose numbering depends on how a reader resynchronises.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from gristmill.synth.crawl.plants import Plant


@dataclass(frozen=True)
class Truth:
    """One row of truth.jsonl; `family` is the head's WARC id, `jaccard` the similarity to the head."""

    kind: str
    url: str | None = None
    expected: str = "kept"
    reasons: tuple[str, ...] = ()
    language: str | None = None
    family: str | None = None
    jaccard: float | None = None
    pii: tuple[Plant, ...] = ()
    leaks: tuple[str, ...] = ()
    words: int | None = None
    note: str = ""
    file: str = ""
    ordinal: int | None = None
    warc_id: str | None = None


def dump(rows: Iterable[object]) -> bytes:
    """Dataclass rows as JSON lines, keys in the order of their fields."""
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows).encode()  # type: ignore[call-overload]


README = """# A demo crawl

Written by `grist sample-data` (pages {pages}, seed {seed}). Every text, person, place and product is
invented; every host is under example.org, example.com, example.net or .example; telephone numbers,
network addresses, cards and accounts are test values.

- `crawl/part-*.warc.gz`: one gzip member a record. `{damaged}` is damaged on purpose,
  the others are intact.
- `crawl/extra.jsonl.gz`: texts as JSON lines, some of them broken.
- `night2/part-0000.warc.gz`: a second, smaller crawl: new pages, and old addresses met again, some with
  edited text.
- `night2/copy-of-part-0001.warc.gz`: the records of `crawl/part-0001.warc.gz`, recompressed as one member.
- `benchmark.jsonl`: invented word problems; some pages leak them.
- `truth.jsonl`: one row a record: file, ordinal, url, warc_id, kind, expected, reasons, family, jaccard, ...
- `instruct/`: instruction data with a truth of its own, see below.
- `nano/`, `reasoning/`: what a model of a million parameters learns in minutes, see below.

How to read the truth: `expected` is the fate under a pipeline that keeps English, applies Gopher quality,
removes duplicates and decontaminates against `benchmark.jsonl`; a pipeline without one of these keeps what
that stage would have dropped. Any one of `reasons` is right (families of reason, or their beginnings).
Which member of a family survives is the pipeline's choice; the head (`family` = its own `warc_id`) is the
original. `jaccard` compares word 5-grams of the article bodies as generated: what extraction adds or loses
moves it. `either`: the fate hangs on the threshold or on banding. `other`: no page. `kind` broken:
quarantined. `ordinal` is null in the damaged file.

# Instruction data

JSON lines, each with an `id`. The number of pages does not change them.

- `instruct/math.jsonl`: word problems of two to four steps (`question`, `answer`): each line of an answer has
  one step `a op b = c`, the last is `#### N`.
- `instruct/code.jsonl`: small Python functions and classes (`code`), with examples in their docstrings.
- `instruct/chat.jsonl`: everyday conversations (`messages`), some with a system message, some of several turns.
- `instruct/tools.jsonl`: conversations that call invented tools (`messages`, `tools`).
- `instruct/refusals.jsonl`: requests that are refused (`messages`).
- `instruct/truth.jsonl`: one row a line of these: file, row (from 0), kind, expected, reason, family.

`expected` is kept, dropped (for one `reason`: unknown_role, empty_turn, no_assistant, bad_order, unknown_tool,
bad_arguments or bad_tool_schema) or quarantined (unreadable: the line breaks off). It is null for a duplicate_set:
rows of one `family` (the id of its first row) are equal but for their ids, and exactly one survives.

# What a small model learns

JSON lines with `id`, `question`, `answer`, all of them right, and both as one `text`. No 13 words in a row of a file
`-held-out` stand in the one to train on.

- `nano/stories.jsonl`, `nano/stories-held-out.jsonl`: short word problems of two to four steps. A line of an answer is
  one step `a+b=c`, the last is `#### N`. Two numbers that follow each other in a held-out problem never do in another.
- `nano/problems.jsonl`, `nano/more-problems.jsonl`: word problems of the same kind, none of them a story above, with
  the last line of their answers alone, for a model that draws chains itself and learns from those that are right.
- `nano/copying.jsonl`, `nano/copying-held-out.jsonl`: words, letters or digits to write once more as a list, once or
  twice as they are, or (`Without repeats:`) where each stands one to three times, with blanks `_` between.
- `reasoning/`: word problems about what is left over, 0 to 4, which a wrong chain often hits by luck. `worked.jsonl`
  has chains, `first.jsonl` and `second.jsonl` have the answers alone, for a model to draw chains for, `held-out.jsonl`
  is asked; `words.jsonl` is for a tokenizer, its numbers have one digit.
"""
