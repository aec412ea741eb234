"""Records between stages: whatever steps a flow has, in whatever order, what is in is what plain Python leaves in."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from flow_reference import Checked, Doc, Reference, tally_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from record_flows import (
    FORGOTTEN,
    HOSTS,
    MINHASH,
    STEPS,
    Blocklist,
    Line,
    Long,
    content,
    draft_of,
    flow_of,
    recipe_of,
    scanned,
)

from gristmill import lake
from gristmill.filters.text.docs import Docs
from gristmill.lake.accounts.balance import BalanceError, Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.chunk_steps import Screening
from gristmill.pipelines.frame.flow import Flow
from gristmill.pipelines.frame.steps import ExactDuplicates, NearDuplicates
from gristmill.pipelines.web import WebRecipe
from gristmill.stages.clusters.select_survivors import SelectSurvivors
from gristmill.stages.core.exclusions import store_exclusions
from gristmill.stages.core.records import (
    CONTENT,
    KEYS,
    Chunk,
    Records,
    Verdicts,
    alive,
    alive_batches,
    alive_keys,
    put_verdicts,
)
from gristmill.stages.core.work import execute
from gristmill.stages.dedup.exact import Exact, exact_works
from gristmill.stages.near.gather import Gather
from gristmill.stages.near.minhash import GatherSignatures, Sign
from gristmill.stages.read.inputs import scan_inputs
from gristmill.stages.read.listing import Listing
from gristmill.stages.run.runner import Runner
from gristmill.stages.text.screen import Screen, screen_work

LINES = st.lists(
    st.builds(Line, st.integers(0, 2), st.integers(0, 3), st.integers(0, 5), st.booleans()), min_size=1, max_size=14
)
ORDERS = st.lists(st.sampled_from(sorted(STEPS)), unique=True).flatmap(st.permutations)


PAGES = [Line(host=2, page=n, body=n, marked=False) for n in range(1, 5)]
ALIKE = [Line(host=2, page=n, body=n, marked=True) for n in range(1, 5)]


@settings(max_examples=16, derandomize=True)
@example([(["minhash", "exact", "paragraphs"], PAGES), ([], PAGES[:1]), (["exact", "minhash"], PAGES + ALIKE)], False)
@example([(["unmark", "exact"], PAGES + ALIKE), (["exact", "unmark"], PAGES + ALIKE)], False)
@example([(["paragraphs", "long"], PAGES), (["exact"], PAGES[:1]), (["paragraphs"], PAGES[1:2])], True)
@example([(["exact", "long", "unmark", "minhash"], PAGES + ALIKE)], True)
@given(st.lists(st.tuples(ORDERS, LINES), min_size=1, max_size=3), st.booleans())
def test_steps_compose_in_any_order_over_any_number_of_versions(versions, forget):
    """Each version has steps of its own in an order of its own. A step that was off for a version does not make the
    next one forget what it knew before."""
    suppression = Suppression.of(domains=[FORGOTTEN]) if forget else Suppression()
    reference, base = Reference(), None
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"{folder}/lake")
        for number, (steps, lines) in enumerate(versions):
            base = grown(store, Path(folder, f"{number}.jsonl"), steps, lines, suppression, reference, base)


def grown(
    store: Store,
    path: Path,
    steps: list[str],
    lines: list[Line],
    suppression: Suppression,
    reference: Reference,
    base: Manifest | None,
) -> Manifest:
    """The next version, held to the reference at each step and at its end."""
    runner, number = Runner(store, workers=0), base.version if base else 0
    inputs = scanned(runner, path, lines, number)
    docs = [Doc(inputs[0].digest, n, line) for n, line in enumerate(lines)]
    come = len(docs)
    if suppression:
        docs = [doc for doc in docs if HOSTS[doc.line.host] != FORGOTTEN]
    forgotten = come - len(docs)
    recipe = recipe_of(flow_of([Checked(name, reference, docs) for name in steps]))
    draft = draft_of(recipe, runner, inputs, suppression, base)
    runner.begin(lambda title, keys: None)
    in_stretches = recipe_of(flow_of([STEPS[name] for name in steps]))  # each was alone, to be held to the reference
    assert draft_of(in_stretches, runner, inputs, suppression, base) == draft
    assert [title for title, _, ran in runner.history if ran] == [], "the same work, whatever it waits for"
    manifest = Versions(store).commit(draft)
    rows = pa.concat_tables([read_table(store, ref) for ref in manifest.ledgers]).to_pylist()
    new = [row for row in rows if row["input"] == inputs[0].digest]
    assert sorted(row["ordinal"] for row in new) == list(range(come))  # one fate each
    assert {row["ordinal"] for row in new if row["fate"] == "kept"} == {doc.ordinal for doc in docs}
    shards = pa.concat_tables([read_table(store, ref) for ref in manifest.shards])
    assert Counter(shards["id"].to_pylist()) == Counter(row["id"] for row in rows if row["fate"] == "kept")
    assert shards["id"].to_pylist()[shards.num_rows - len(docs) :] == [doc.id for doc in docs]
    assert shards["text"].to_pylist()[shards.num_rows - len(docs) :] == [doc.text for doc in docs]
    assert manifest.kept - (base.kept if base else Tally()) == tally_of(docs)
    check_funnel(manifest, Counter(row["reason"] for row in rows if row["reason"]), steps, forgotten)
    return manifest


def check_funnel(manifest: Manifest, reasons: Counter[str], steps: list[str], forgotten: int) -> None:
    """Its rows are in the order of the steps, each begins where the one before ended, and all reasons are in them."""
    names = [row.stage for row in manifest.funnel]
    ran = [name for name in names if name in steps]
    assert ran == steps and names[:2] == ["read", "extract"] and (not forgotten or "forget" in names)
    left = manifest.received.count
    for row in manifest.funnel:
        assert row.received == left
        left = row.passed
    assert left == manifest.kept.count
    assert sum((Counter(row.dropped) for row in manifest.funnel), Counter()) == reasons


class BlockedRecipe(WebRecipe):
    """The web pipeline with a blocklist of hosts behind its filters, as its documentation says to add one."""

    @property
    def flow(self) -> Flow:
        first, *others = super().flow.steps
        return Flow(
            self.extract, (first, Screening(Screen((Blocklist(),), Docs), "screen hosts"), *others), self.shards
        )


def test_a_host_blocklist_after_the_screen_works_where_records_were_forgotten(tmp_path):
    """And it counts just what came to it: neither what was forgotten nor what the filters before it dropped."""
    text = "The miller took the grain that we brought to the mill, and ground it with a stone of granite. "
    urls = [f"https://{host}/{n}" for host in HOSTS for n in range(3)]
    rows = [f'{{"url": "{url}", "text": "{f"Page {n}. " + text * 5}"}}\n' for n, url in enumerate(urls)]
    rows.append(
        '{"url": "https://one.example/short", "text": "The miller took the grain that we brought to the mill."}\n'
    )
    (tmp_path / "pages.jsonl").write_text("".join(rows))
    store = open_store(str(tmp_path / "lake"))
    runner, suppression = Runner(store, workers=0), Suppression.of(domains=[FORGOTTEN])
    recipe = BlockedRecipe.model_validate({"inputs": ["unused"], "minhash": None})
    inputs = scan_inputs(runner, recipe.scan, Listing([str(tmp_path / "pages.jsonl")], []))
    m = Versions(store).commit(draft_of(recipe, runner, inputs, suppression))
    kept = lake.open(str(m), lake=str(tmp_path / "lake")).to_arrow()
    assert sorted(kept["url"].to_pylist()) == [url for url in urls if HOSTS[2] in url]
    assert set(kept["language"].to_pylist()) == {"en"}  # a measure of the first screen
    dropped = {row.stage: row.received - row.passed for row in m.funnel}
    assert list(dropped) == ["read", "extract", "forget", "language", "gopher_quality", "blocklist", "exact"]
    assert list(dropped.values()) == [0, 0, 3, 0, 1, 3, 0]


# Chunks


def chunk_of(store: Store, n: int) -> Chunk:
    table = content(n)
    return Chunk(put_table(store, CONTENT, table), Tally.of_records(["f" * 64] * n, range(n)), 6 * n)


def judged(store: Store, chunk: Chunk, dropped: set[int], name: str, values: list[int]) -> Chunk:
    """The chunk with verdicts that drop these ordinals, and a measure."""
    rows = alive(store, chunk, KEYS)
    reasons = ["toy.bad" if n in dropped else None for n in rows["ordinal"].to_pylist()]
    table = rows.append_column("reason", pa.array(reasons, pa.string()))
    table = table.append_column(name, pa.array([values[n] for n in rows["ordinal"].to_pylist()]))
    verdicts = Verdicts(put_verdicts(store, table), (name,))
    left = [n for n, reason in zip(rows["ordinal"].to_pylist(), reasons, strict=True) if reason is None]
    tally = Tally.of_records(["f" * 64] * len(left), left)
    return Chunk(chunk.content, tally, chunk.bytes, (*chunk.verdicts, verdicts))


def excluded(store: Store, *ordinals: int) -> ObjectRef:
    return store_exclusions(store, pa.table({"input": ["f" * 64] * len(ordinals), "ordinal": list(ordinals)}))


def test_what_is_alive_is_the_same_whole_in_batches_and_by_keys(store):
    chunk = judged(store, judged(store, chunk_of(store, 12), {1, 2}, "a.n", list(range(12))), {5}, "b.n", [7] * 12)
    out = [excluded(store, 0, 2), excluded(store), excluded(store, 9)]
    expected = [3, 4, 6, 7, 8, 10, 11]
    rows = alive(store, chunk, ["input", "ordinal", "text"], measures=["b.n", "a.n"], exclusions=out)
    assert rows["ordinal"].to_pylist() == rows["a.n"].to_pylist() == expected and set(rows["b.n"].to_pylist()) == {7}
    assert rows["text"].to_pylist() == [f"text {n}" for n in expected]
    batches = alive_batches(store, chunk, ["ordinal", "text"], out)
    assert [n for batch in batches for n in batch["ordinal"].to_pylist()] == expected
    records = Records((chunk,), Tally(), tuple(out))
    hit = pc.field("content") >= f"{12 - 8:032x}"  # of the first nine
    keys = alive_keys(store, records.put_keys(store), records.put_exclusions(store), hit)
    assert sorted(keys["ordinal"].to_pylist()) == [3, 4, 6, 7, 8] and keys.schema.names == list(KEYS)


def test_without_verdicts_and_exclusions_all_are_alive(store):
    chunk = chunk_of(store, 5)
    assert alive(store, chunk, None).num_rows == 5
    assert sum(batch.num_rows for batch in alive_batches(store, chunk, ["ordinal"])) == 5
    only = alive(store, chunk, ["input", "ordinal"], exclusions=[excluded(store, 3)])
    assert only["ordinal"].to_pylist() == [0, 1, 2, 4]
    batches = alive_batches(store, chunk, ["ordinal"], [excluded(store, 3)])
    assert [n for batch in batches for n in batch["ordinal"].to_pylist()] == [0, 1, 2, 4]


def test_verdicts_on_other_records_are_refused(store):
    chunk = chunk_of(store, 5)
    stranger = judged(store, chunk_of(store, 6), set(), "a.n", [0] * 6)
    mixed = Chunk(chunk.content, chunk.tally, 30, stranger.verdicts)
    with pytest.raises(ValueError, match="name other records"):
        alive(store, mixed, ["input", "ordinal"])
    with pytest.raises(ValueError, match="has 5 of the 6 records"):
        list(alive_batches(store, mixed, ["ordinal"]))


def test_a_measure_that_nobody_took_is_named_with_those_that_there_are(store):
    with pytest.raises(ValueError, match=r"no filter before measures b\.n; there are a\.n"):
        alive(store, judged(store, chunk_of(store, 3), set(), "a.n", [0, 1, 2]), None, measures=["a.n", "b.n"])
    with pytest.raises(ValueError, match=r"measures a\.n; there are none"):
        alive(store, chunk_of(store, 3), None, measures=["a.n"])


def test_a_screen_that_loses_a_record_is_caught_whatever_was_excluded_before(store, monkeypatch):
    chunk = chunk_of(store, 9)
    records = Records((chunk,), chunk.tally - Tally.of_records(["f" * 64], [4]), (excluded(store, 4),))
    work = screen_work(Screen((Blocklist(),), Docs), chunk, records.put_exclusions(store))
    receipt = execute(store, work)
    assert receipt.received == records.tally and receipt.dropped.count == 3
    assert records.judged("screen", [receipt], ["blocklist.host"]).tally == receipt.passed
    with pytest.raises(BalanceError, match="screen: 9 records went in but 8 have a fate"):
        Records.of([chunk]).judged("screen", [receipt], [])


def test_the_screen_is_the_same_work_whatever_is_excluded_later(store):
    """So that what was read and judged once serves every later version and every other order of comparisons."""
    chunk, stage = chunk_of(store, 3), Screen((Long(),), Docs)
    excluding = Records((chunk,), Tally(), (excluded(store, 1),)).put_exclusions(store)
    first, behind = screen_work(stage, chunk), screen_work(stage, chunk, excluding)
    assert first.inputs == (chunk.content.sha256,) and first.key != behind.key


def test_exact_duplicates_need_no_screen_before_them(store):
    table = content(6, content=["c" * 32] * 3 + ["d" * 32, "e" * 32, "d" * 32])
    chunk = Chunk(put_table(store, CONTENT, table), Tally.of_records(["f" * 64] * 6, range(6)), 1)
    (work,) = exact_works(Exact(), store, Records((chunk,), chunk.tally, (excluded(store, 0),)))
    receipt = execute(store, work)
    assert receipt.received.count == 5 and receipt.passed.count == 3
    assert sorted(read_table(store, receipt.output("losers"))["ordinal"].to_pylist()) == [2, 5]


def test_survivors_are_chosen_by_a_measure_of_any_screen_before(tmp_path):
    """The longer of two alike texts, though another screen stands between; the default is the same words' count."""
    near = NearDuplicates(
        Sign(MINHASH), GatherSignatures(4, 4, ("-blocklist.rank",)), Gather(signatures=True), SelectSurvivors()
    )

    @dataclass(frozen=True)
    class Ranked(Blocklist):
        def measure(self, docs: Docs, /) -> pa.RecordBatch:
            ranks = [int(url.rsplit("/", 1)[1]) for url in docs.urls.to_pylist()]
            return super().measure(docs).append_column("rank", pa.array(ranks, pa.int64()))

    store = open_store(str(tmp_path / "lake"))
    runner = Runner(store, workers=0)
    lines = [Line(1, page, 1, marked=page % 2 == 1) for page in (3, 2, 1, 0)]
    flow = flow_of([Screening(Screen((Ranked(),), Docs), "screen hosts"), STEPS["long"], near])
    draft = draft_of(recipe_of(flow), runner, scanned(runner, tmp_path / "a.jsonl", lines, 0), Suppression())
    (shard,) = (read_table(store, ref) for ref in draft.shards)
    assert shard["url"].to_pylist() == ["https://two.example/0"]


def test_two_steps_of_one_name_are_refused():
    with pytest.raises(ValueError, match="exact decides in two places"):
        flow_of([ExactDuplicates(Exact()), ExactDuplicates(Exact())])
