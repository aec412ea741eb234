"""Drawing of audits: a verifier's verdicts against labels."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.orchestration.show.tables import counted, draw_facts, grid, heading
from gristmill.orchestration.show.terminal import plain
from gristmill.synth.audit.audit import Audit, Row, Share


def draw_audit(console: Console, audit: Audit, shown: int) -> None:
    """The table, the shares with their intervals, reasons, and the first disagreements."""
    console.print(Text.assemble((plain(audit.verifier), "bold"), f" on {counted(audit.samples, 'labelled sample')}"))
    facts = {
        "precision": _share(audit.precision, "of the accepted are right"),
        "recall": _share(audit.recall, "of the right are accepted"),
        "undecided": _share(audit.undecided, "of all"),
    }
    draw_facts(console, facts)
    heading(console, "Verdicts by the form of the answer")
    table = grid("  answer", "label", "accepted>", "rejected>", "undecided>", "disagree>")
    for form, row in (*audit.forms.items(), ("all", audit.table)):
        _draw_row(table, form, row)
    console.print(table)
    heading(console, "Reasons")
    reasons = grid("  reason", "samples>")
    for reason, count in audit.reasons.items():
        reasons.add_row(f"  {plain(reason)}", f"{count:,}")
    console.print(reasons)
    if not audit.disagreements:
        console.print("\nNo disagreements.")
        return
    heading(console, f"Disagreements: {len(audit.disagreements):,}")
    for item in audit.disagreements[:shown]:
        label = "right" if item.right else "wrong"
        console.print(Text(f"  {item.at}: labelled {label}, {item.outcome} ({item.reason or 'no reason'})"))
        console.print(Text(f"    {plain(item.evidence)}"))
        console.print(Text(f"    ... {plain(item.ending)}", style="dim"))
    if len(audit.disagreements) > shown:
        console.print(Text(f"  and {len(audit.disagreements) - shown:,} more: --show, --json", style="dim"))


def _share(share: Share, meaning: str) -> str:
    if share.value is None or share.interval is None:
        return "of none"
    low, high = share.interval
    return f"{share.value:.2%} ({low:.2%} to {high:.2%}) {meaning}: {share.part:,} of {share.whole:,}"


def _draw_row(table: Table, form: str, row: Row) -> None:
    right = (row.accepted_right, row.rejected_right, row.undecided_right, row.rejected_right)
    wrong = (row.accepted_wrong, row.rejected_wrong, row.undecided_wrong, row.accepted_wrong)
    table.add_row(f"  {form}", "right", *(f"{count:,}" for count in right))
    table.add_row("", "wrong", *(f"{count:,}" for count in wrong))
