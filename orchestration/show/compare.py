"""Drawing of what differs: two versions of a dataset (`diff`), and a version under other thresholds (`replay`).

Counts stand side by side, per stage and reason, with the settings that differ beside the stage that has them. Records
are ids, and for a replay also places, measures and texts, cut unless asked for in full.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from gristmill.lake.query.diff import Diff
from gristmill.orchestration.show.tables import SHOWN, counted, grid, heading, indented, percent, where
from gristmill.orchestration.show.terminal import plain

if TYPE_CHECKING:  # it takes time to import, and `diff` has no use for it
    from gristmill.pipelines.replay.replay import Change, Example, Replay

CUT = 240
"""Characters of a text shown without --full: enough to see what kind of record it is."""


def draw_diff(console: Console, diff: Diff) -> None:
    """`grist diff`: what decides, then what came of it."""
    same = "the same content" if diff.same_content else "different content"
    console.print(Text.assemble((diff.a, "bold"), " to ", (diff.b, "bold"), f": {same}"))
    _draw_pairs(console, "Recipe", diff.recipe)
    _draw_pairs(console, "Stage versions", diff.stages)
    if diff.inputs_added or diff.inputs_removed:
        heading(console, f"Inputs  {len(diff.inputs_added):,} added, {len(diff.inputs_removed):,} removed")
    for sign, style, files in (("+", "green", diff.inputs_added), ("-", "red", diff.inputs_removed)):
        for file in files[:SHOWN]:
            name = plain(file.names[0]) if file.names else "unnamed"
            console.print(
                Text.assemble((f"  {sign} ", style), name, (f"  {file.digest[:12]}, {file.records:,} records", "dim"))
            )
        if len(files) > SHOWN:
            console.print(Text(f"  {sign} and {len(files) - SHOWN:,} more", style="dim"))
    _draw_funnels(console, diff)
    heading(console, "Records")
    table = grid("", "in both>", f"only {diff.a}>", f"only {diff.b}>")
    for what, n in (("  came in", diff.records), ("  kept", diff.kept)):
        table.add_row(what, f"{n.both:,}", f"{n.only_a:,}", f"{n.only_b:,}")
    console.print(table)
    _draw_changes(console, diff)


def _draw_pairs(console: Console, title: str, pairs: Sequence[tuple[str, Any, Any]]) -> None:
    if not pairs:
        return
    heading(console, title)
    table = grid("~", "~", "", "~")
    for name, a, b in pairs:
        left, right = (plain(json.dumps(v, ensure_ascii=False)) for v in (a, b))
        table.add_row(f"  {name}", Text(left, style="red"), "->", Text(right, style="green"))
    console.print(table)


def _draw_funnels(console: Console, diff: Diff) -> None:
    """Both funnels, side by side: what passed each stage, in per cent of what came in, and why the rest did not."""
    if not any(stage.reasons for stage in diff.side_by_side) and diff.received[0] == diff.received[1]:
        return
    heading(console, "Funnels")
    table = grid("~", f"{diff.a}>", "  %>", f"{diff.b}>", "  %>", "change>")
    _add_counts(table, "  came in", diff.received, diff.received)
    for stage in diff.side_by_side:
        _add_counts(table, f"  {stage.stage}", stage.passed, diff.received)
        for key, a, b in stage.settings:
            left, right = (plain(json.dumps(value, ensure_ascii=False)) for value in (a, b))
            table.add_row(Text(f"      {key} {left} -> {right}", style="yellow"))
        for reason, a, b in stage.reasons:
            _add_counts(table, f"    {reason}", (a, b), diff.received, style="dim" if a == b else "")
    console.print(table)


def _add_counts(
    table: Any, name: str, counts: tuple[int | None, int | None], received: tuple[int, int], style: str = ""
) -> None:
    """A row of counts of both sides, in per cent of what came in to each, and their difference."""
    cells = []
    for count, of in zip(counts, received, strict=True):
        cells += ["-", ""] if count is None else [f"{count:,}", percent(count, of)]
    a, b = counts
    change = "" if a is None or b is None or a == b else f"{b - a:+,}"
    table.add_row(name, *cells, change, style=style)


def _draw_changes(console: Console, diff: Diff) -> None:
    heading(console, "Fates that changed")
    if not diff.changes:
        console.print("  none")
    for change in diff.changes:
        indented(console, _transition(change.records, change.before, change.after))
        for example in change.examples:
            console.print(Text(f"               {example}", style="dim"), soft_wrap=True)
    read = f"  {counted(diff.objects_read, 'ledger object')} compared, {diff.objects_shared:,} shared and skipped"
    console.print(Text(read, style="dim"))


def _transition(records: int, before: str, after: str) -> Text:
    return Text.assemble(f"{records:>9,}  ", (before, "red"), " -> ", (after, "green"))


def draw_replay(console: Console, replay: Replay, full: bool) -> None:
    """`grist replay`. `full`: texts of examples are not cut."""
    console.print(Text.assemble((replay.version, "bold"), " with other settings, judged by its stored measures"))
    _draw_pairs(console, "Settings", replay.settings)
    heading(console, "Fates")
    table = grid("~", f"{replay.version}>", "replayed>", "change>")
    for name, before, after in replay.verdicts:
        moved = f"{after - before:+,}" if after != before else ""
        table.add_row(f"  {name}", f"{before:,}", f"{after:,}", moved, style="" if moved else "dim")
    console.print(table)
    heading(console, "Records that change")
    if not replay.changes:
        console.print("  none")
    for change in replay.changes:
        _draw_change(console, change, full)
    heading(console, "Not replayed")
    for line in _limits(replay):
        indented(console, line)


def _draw_change(console: Console, change: Change, full: bool) -> None:
    indented(console, _transition(change.records, change.before, change.after))
    for example in change.examples:
        _draw_example(console, example, full)


def _draw_example(console: Console, example: Example, full: bool) -> None:
    record = example.record
    about = [record.id or "no id"]
    if example.measure is not None:
        value = f"{example.value:.4g}" if isinstance(example.value, float) else plain(str(example.value))
        about.append(f"{example.measure} {value}")
    if record.place is not None:
        about.append(where(record.place))
    console.print(Padding(Text("  ".join(about), style="dim"), (0, 0, 0, 13)))
    if record.text is None:
        text = Text(f"no text: {record.why_no_text}", style="yellow")
    else:
        shown = record.text if full else " ".join(record.text[: 2 * CUT].split())[:CUT]
        text = Text(plain(shown) + ("" if full or len(record.text) <= CUT else " ..."))
    console.print(Padding(text, (0, 0, 0, 13)))


def _limits(replay: Replay) -> Iterable[str]:
    """What a replay does not say, in words."""
    unasked = replay.received - replay.asked
    if unasked:
        yield f"{counted(unasked, 'record')} never came to the filters: no setting of theirs changes that"
    if replay.unmeasured:
        yield f"{counted(replay.unmeasured, 'record')} would come to filters that have not measured them"
    if replay.is_exact:
        yield f"{replay.passed:,} pass the filters, of {counted(replay.kept_at_most, 'content')}: so many would be kept"
        return
    yield (
        f"what stands behind the filters: {replay.passed:,} pass them, and at most {replay.kept_at_most:,} would be"
        " kept, which is as many as have different contents. Duplicates and other steps drop more, and of what is"
        " dropped as a duplicate now some would come back in the place of a survivor that is not kept"
    )
