"""Takedown in mixtures: a record is cut out of windows, and what is left is what the others alone would be."""

from __future__ import annotations

from collections import Counter
from typing import Any

import mixtures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forget_lake import do, erase, readable
from mixtures import sources as sources
from tar_lake import groups
from typer.testing import CliRunner

from gristmill.lake.accounts.fan import check_members
from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table, read_table
from gristmill.lake.takedown.forget import plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.main import app
from gristmill.pipelines.tokenizer import tokenizer_of
from gristmill.stages.mix.windows import read_windows, sample_stretches


def members_of(store: Store, manifest: Manifest) -> list[dict[str, Any]]:
    return [row for ref in manifest.members for row in read_table(store, ref).to_pylist()]


def drawn_from(store: Store, manifest: Manifest, source: str, at: int = 0) -> str:
    """A record of a source that the mixture holds; of those in several windows the first."""
    pieces = Counter(row["member"] for row in members_of(store, manifest) if row["source"] == source)
    return [record for record, _ in sorted(pieces.items(), key=lambda item: (-item[1], item[0]))][at]


def sound(store: Store) -> None:
    """What the mixtures promise is there and agrees; the toy sources have no ledgers."""
    assert [finding.message for finding in verify(store, ["mix"], deep=True)] == []


def forget_ids(store: Store, *ids: str):
    return do(store, Suppression(ids=frozenset(ids)))


def kept_stretches(windows, gone: set[str]) -> dict[str, list[tuple[Any, ...]]]:
    """Of each window its stretches (member, tokens, what is learned) but those of `gone`; windows with nothing left
    are left out."""
    left = {}
    for window in windows:
        bounds = window.arrays["cu_seqlens"]
        stretches = [
            (tuple(member.items()), *(window.arrays[name][start:end].tolist() for name in ("input_ids", "loss_mask")))
            for member, start, end in zip(window.meta["members"], bounds[:-1], bounds[1:], strict=True)
            if member["member"] not in gone
        ]
        if stretches:
            left[window.key] = stretches
    return left


def check_statistics(store: Store, manifest: Manifest) -> None:
    """Every number, counted anew from the windows."""
    windows, statistics = mixtures.windows(store, manifest), manifest.statistics
    tokens = sum(len(window.arrays["input_ids"]) for window in windows)
    assert (statistics["windows"], statistics["tokens"]) == (len(windows), tokens)
    assert statistics["loss_tokens"] == sum(int(window.arrays["loss_mask"].sum()) for window in windows)
    assert statistics["waste"] == round(1 - tokens / (len(windows) * manifest.recipe["window"]), 6)
    rows = members_of(store, manifest)
    samples = {share["source"] for share in statistics["mixture"] if share["samples"]}
    pieces, lengths = Counter[tuple[str, str, int]](), Counter[tuple[str, str, int]]()
    for row in rows:
        draw = (row["source"], row["member"], row["epoch"])
        pieces[draw] += 1
        lengths[draw] += row["length"]
    documents = [draw for draw in pieces if draw[0] not in samples]
    assert (statistics["documents"], statistics["samples"]) == (len(documents), len(pieces) - len(documents))
    assert statistics["documents_cut"] == sum(pieces[draw] > 1 for draw in documents)
    assert statistics["documents_too_long"] == sum(lengths[draw] > manifest.recipe["window"] for draw in documents)
    for share in statistics["mixture"]:
        assert share["drawn"] == sum(row["length"] for row in rows if row["source"] == share["source"])
    check_members(pa.Table.from_pylist(rows), dict(lengths))
    positions = {}
    for row in rows:
        positions.setdefault(row["pack"], []).append(row["position"])
    assert all(places == list(range(len(places))) for places in positions.values())


@pytest.mark.parametrize("source", ["web@v1", "math@v1"])
def test_a_record_is_cut_out_of_every_window_and_all_else_stays(sources, source):
    """Several epochs and several shards; the books balance with every draw."""
    mixed = {"web@v1": {"weight": 7, "max_epochs": 3}, "math@v1": {"weight": 3, "max_epochs": 6}}
    manifest = mixtures.mix(sources, mixed, shard_tokens=16_384).manifest
    check_statistics(sources, manifest)
    before, gone = mixtures.windows(sources, manifest), drawn_from(sources, manifest, source)
    draws = {(row["source"], row["epoch"]) for row in members_of(sources, manifest) if row["member"] == gone}
    assert len(manifest.members) > 1 and len(draws) > 1
    report = forget_ids(sources, gone)
    clean = Versions(sources).resolve("mix")
    assert ("mix@v1", "mix@v2") in report.made and set(report.withdrawn) == {"mix@v1", source}
    after = mixtures.windows(sources, clean)
    assert kept_stretches(after, set()) == kept_stretches(before, {gone})
    for window in after:
        assert window.arrays["cu_seqlens"][0] == 0 and np.diff(window.arrays["cu_seqlens"]).min() > 0
        assert {name: array.dtype for name, array in window.arrays.items()} == {
            name: array.dtype for name, array in before[0].arrays.items()
        }
    check_statistics(sources, clean)
    assert clean.samples == manifest.samples and clean.verdicts["forgotten"].count == len(draws)
    assert (clean.kept.count, clean.dropped.count) == (manifest.kept.count - 1, manifest.dropped.count + 1)
    untouched = set(clean.shards) & set(manifest.shards)
    assert len(clean.shards) == len(manifest.shards)
    held = {row["pack"][:6] for row in members_of(sources, manifest) if row["member"] == gone}
    assert len(untouched) == len(manifest.shards) - 2 * len(held)
    groups(sources, clean)  # plain tars whose indices fit
    sound(sources)


def test_no_token_of_it_is_in_the_lake_afterwards(sources):
    manifest = mixtures.mix(sources, {"web@v1": 1, "math@v1": 1}).manifest
    gone = drawn_from(sources, manifest, "web@v1")
    text = next(
        row["text"]
        for row in Dataset(sources, Versions(sources).resolve("web@v1")).to_arrow().to_pylist()
        if row["id"] == gone
    )
    whole = mixtures.stretches(mixtures.windows(sources, manifest))
    ids = next(tokens for (_, record, _), tokens in whole.items() if record == gone)[:24].tolist()
    assert len(ids) == 24 and _files_with(sources, text, ids)
    forget_ids(sources, gone)
    erase(sources)
    sound(sources)
    assert _files_with(sources, text, ids) == []


def _files_with(store: Store, text: str, ids: list[int]) -> list[str]:
    """Files that hold the text, or its first tokens in a row: in a tar as bytes, in a table in a list of numbers."""
    needles, row = (text[:60].encode(), np.array(ids, np.int32).tobytes()), str(ids)[1:-1].encode()
    return [path for path, data in readable(store) if row in data or any(needle in data for needle in needles)]


def test_a_window_that_held_nothing_else_goes_and_records_are_still_found(sources):
    """Keys keep their numbers, so that a window is called the same in both versions."""
    manifest = mixtures.mix(sources, {"math@v1": 1}, window=64).manifest
    windows = mixtures.windows(sources, manifest)
    alone = {member["member"] for member in windows[3].meta["members"]}
    forget_ids(sources, *alone)
    clean = Versions(sources).resolve("mix")
    assert windows[3].key not in {window.key for window in mixtures.windows(sources, clean)}
    assert clean.statistics["windows"] < manifest.statistics["windows"]
    check_statistics(sources, clean)
    tokenizer = tokenizer_of(Versions(sources), clean)
    drawn = sample_stretches(sources, clean, tokenizer, 1000)
    assert len(drawn.stretches) == drawn.population["math@v1"] == len(members_of(sources, clean))
    assert not alone & {stretch.id for stretch in drawn.stretches}
    reader = read_windows(sources, clean)
    reader.check()
    assert sorted(position for position, _ in reader.iterate(stop=len(reader))) == list(range(len(reader)))
    sound(sources)


def test_a_second_takedown_and_what_the_commands_say(sources, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    manifest = mixtures.mix(sources, {"web@v1": 1, "math@v1": 1}).manifest
    first, second = (drawn_from(sources, manifest, "math@v1", at) for at in (0, 1))
    forget_ids(sources, first)
    (tmp_path / "ids").write_text(second)
    ask = ["forget", "--ids", str(tmp_path / "ids"), "--reason", "request 8", "--lake", sources.uri]
    looked = CliRunner().invoke(app, ask)
    assert "a version without them would follow mix@v2" in looked.output and "withdrawn: v2" in looked.output
    done = CliRunner().invoke(app, [*ask, "--yes"])
    assert done.exit_code == 0 and "mix@v3 is without them" in done.output, done.output
    clean = Versions(sources).resolve("mix")
    assert {str(ref) for ref in clean.sources} == {"web@v1", "math@v1", "bpe@v1"}  # what it was mixed from
    assert clean.verdicts["forgotten"].count >= 2 and clean.funnel[-1].dropped == {"forget.requested": 2}
    check_statistics(sources, clean)
    sound(sources)
    assert plan_forget(Versions(sources), Suppression(ids=frozenset({first, second}))).nothing
    shown = CliRunner().invoke(app, ["show", "mix", "--lake", sources.uri])
    assert shown.exit_code == 0 and "Mixture" in shown.output and "forget passed" in shown.output, shown.output
    assert CliRunner().invoke(app, ["sample", "mix", "--lake", sources.uri]).exit_code == 0


def test_a_record_of_two_sources_goes_from_both(store, tmp_path):
    """The same text in two datasets is two rows of the ledger, with one id."""
    texts = mixtures.texts(30, longest=60)
    mixtures.documents(store, "web", texts)
    rows = read_table(store, Versions(store).resolve("web@v1").shards[0])
    other = mixtures.documents(store, "other", texts[5:6])
    twin = rows.slice(5, 1)
    shard = put_table(store, "shard", twin)
    fields = {name: getattr(other, name) for name in Draft.model_fields}
    Versions(store).commit(Draft(**fields | {"shards": (shard,), "run_key": "twin"}))
    mixtures.tokenizer(store, "web@v1")
    manifest = mixtures.mix(store, {"web@v1": 1, "other@v2": {"weight": 0.01, "max_epochs": 2}}).manifest
    gone = twin["id"][0].as_py()
    assert {row["source"] for row in members_of(store, manifest) if row["member"] == gone} == {"web@v1", "other@v2"}
    forget_ids(store, gone)
    clean = Versions(store).resolve("mix")
    assert clean.kept.count == manifest.kept.count - 2 and gone not in {r["member"] for r in members_of(store, clean)}
    check_statistics(store, clean)


# what cannot be cut is withdrawn


def _changed(store: Store, manifest: Manifest, change) -> Manifest:
    """The mixture once more, with its first table of members changed."""
    members = put_table(store, "members", change(read_table(store, manifest.members[0])))
    fields = {name: getattr(manifest, name) for name in Draft.model_fields}
    ledgers = (*manifest.fates, members, *manifest.members[1:])
    return Versions(store).commit(Draft(**fields | {"ledgers": ledgers, "run_key": "changed"}))


@pytest.mark.parametrize(
    ("column", "value"), [("length", "of other lengths|other members"), ("epoch", "other members")]
)
def test_members_that_do_not_say_what_the_windows_hold_give_no_successor(sources, column, value):
    manifest = mixtures.mix(sources, {"math@v1": 1}).manifest

    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index(column)
        return table.set_column(
            at,
            table.schema.field(at),
            pa.array([n + 1 for n in table[column].to_pylist()], table.schema.field(at).type),
        )

    _changed(sources, manifest, change)
    report = forget_ids(sources, drawn_from(sources, manifest, "math@v1"))
    assert set(report.withdrawn) >= {"mix@v1", "mix@v2"} and "mix@v3" not in {new for _, new in report.made}
    assert any(word in report.without_successor["mix@v2"] for word in value.split("|"))


def test_a_mixture_that_cannot_say_what_it_holds_goes_with_what_its_ledger_kept(sources):
    manifest = mixtures.mix(sources, {"math@v1": 1}).manifest
    fields = {name: getattr(manifest, name) for name in Draft.model_fields}
    blind = Draft(**fields | {"dataset": "blind", "ledgers": manifest.fates, "run_key": "blind"})
    Versions(sources).commit(blind)
    plan = plan_forget(Versions(sources), Suppression(ids=frozenset({drawn_from(sources, manifest, "math@v1")})))
    mixed = [(version.ref, version.withdraw) for version in plan.derived if version.role == "mixed"]
    assert mixed == [("blind@v1", True)]
    dropped = pq.read_table(sources.open(manifest.fates[0].key)).filter(pa.compute.field("fate") == "dropped")
    for record in dropped["id"].to_pylist()[:1]:
        plan = plan_forget(Versions(sources), Suppression(ids=frozenset({record})))
        assert ("blind@v1", False) in [(version.ref, version.withdraw) for version in plan.derived]
