"""The funnel of a version as Prefect shows it: what came in, and per stage what passed and why the rest did not."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.artifacts import create_markdown_artifact

from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.growth import growth_report


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
        rows.append(f"| {row.stage} | {row.received:,} | {row.passed:,} | {', '.join(reasons)} |")
    if report := growth_report(m, changed):
        rows += ["", report]
    return "\n".join(rows)
