"""A version as a notebook shows it: a small table of what its manifest says, whatever stands in there as text.

Nothing is read for it. It has no style of its own, so that it is light or dark as the notebook is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from gristmill.lake.versions.manifest import Manifest, stored_bytes

SHOWN = 8
"""Reasons of a funnel that are named."""


def as_html(manifest: Manifest, uri: str) -> str:
    """A table of facts, and one of reasons why records were not kept."""
    facts = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in _facts(manifest))
    return (
        f"<div><b>{escape(str(manifest))}</b> in {escape(uri)}"
        f"<table><tbody>{facts}</tbody></table>{_reasons(manifest)}</div>"
    )


def _facts(m: Manifest) -> Iterator[tuple[str, str]]:
    yield "holds", m.layout.called
    fates = f"{m.received.count:,} in = {m.kept.count:,} kept + {m.dropped.count:,} dropped"
    yield "records", f"{fates} + {m.quarantined.count:,} quarantined"
    yield "shards", f"{len(m.shards):,}, with ledgers {stored_bytes(m) / 1e6:,.1f} MB"
    yield "digest", m.digest
    if at := m.made.get("at"):
        yield "made", f"{at}, commit {m.made.get('commit') or 'unknown'}"
    if m.parent is not None:
        yield "extends", str(m.parent)
    if m.sources:
        yield "made from", ", ".join(f"{ref} ({ref.role})" for ref in m.sources)
    for kind, schema in m.schemas.items():
        columns = [line for line in schema.splitlines() if not line.startswith((" ", "-"))]
        yield f"columns of a {kind}", ", ".join(columns)


def _reasons(m: Manifest) -> str:
    counts = [
        (f"{row.stage}: {reason}", records)
        for row in m.funnel
        for reason, records in (*row.dropped.items(), *row.quarantined.items())
    ]
    if not counts:
        return ""
    counts.sort(key=lambda count: (-count[1], count[0]))
    rows: Sequence[Iterable[str]] = [(name, f"{records:,}") for name, records in counts[:SHOWN]]
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    more = f"<p>and {len(counts) - SHOWN:,} reasons more</p>" if len(counts) > SHOWN else ""
    return f"<table><thead><tr><th>not kept</th><th>records</th></tr></thead><tbody>{body}</tbody></table>{more}"
