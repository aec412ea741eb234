"""The funnel of a version as Prefect shows it: what came in, and per stage what passed and why the rest did not."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.artifacts import create_markdown_artifact

from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.growth import growth_report

LONGEST = 74
"""Characters of a line of reasons: in a window of 1,400 pixels Prefect's page shows some 80 beside the numbers, and
cuts what is longer; it breaks no lines in a table."""


def publish(manifest: Manifest, changed: Sequence[str]) -> None:
    """The funnel as an artifact of the flow run, one series a dataset. `changed`: see `growth_report`."""
    key = "funnel-" + "".join(c if c.isalnum() else "-" for c in manifest.dataset)
    text = funnel(manifest, changed)
    create_markdown_artifact(text, key=key, description=f"What became of every record of {manifest}")


def funnel(manifest: Manifest, changed: Sequence[str] = ()) -> str:
    """Markdown: what came in, and per stage what passed and why the rest did not."""
    m = manifest
    rows = [
        f"## {m}",
        f"{m.received.count:,} records in = {m.kept.count:,} kept + {m.dropped.count:,} dropped"
        f" + {m.quarantined.count:,} quarantined; content digest `{m.digest[:16]}`",
        "",
        "| stage | came in | passed | not passed |",
        "|---|---:|---:|---|",
    ]
    for row in m.funnel:
        reasons = [f"{name.partition('.')[2]} {n:,}" for name, n in row.dropped.items()]
        reasons += [f"{name.partition('.')[2]} {n:,} (quarantined)" for name, n in row.quarantined.items()]
        first, *more = in_lines(reasons)
        rows.append(f"| {row.stage} | {row.received:,} | {row.passed:,} | {first} |")
        rows += [f"| | | | {line} |" for line in more]
    if report := growth_report(m, changed):
        rows += ["", report]
    return "\n".join(rows)


def in_lines(reasons: Sequence[str]) -> list[str]:
    """Lines of a cell: at least one, of reasons that are not cut, each no longer than LONGEST if it can be."""
    lines = [""]
    for reason in reasons:
        if not lines[-1]:
            lines[-1] = reason
        elif len(lines[-1]) + len(reason) + 2 <= LONGEST:
            lines[-1] += f", {reason}"
        else:
            lines[-1] += ","
            lines.append(reason)
    return lines
