"""A batch of samples as documents: what people and assistants say in them, without the template's special tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import pyarrow as pa

from gristmill.filters.text.docs import Docs


class Samples(Docs):
    """As Docs, of samples: `parts` say which stretches of a text are special tokens."""

    columns: ClassVar[tuple[str, ...]] = ("text", "parts", "url")

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        """The samples of a table with `columns`. Turns are lines."""
        pairs = zip(rows["text"].to_pylist(), rows["parts"].to_pylist(), strict=True)
        return cls(pa.array(["\n".join(_plain(*pair)) for pair in pairs], pa.string()), urls=rows["url"])


def _plain(text: str, parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What of a text is no special token, in order."""
    plain, at = [], 0
    for part in parts:
        if not part["special"]:
            plain.append(text[at : at + part["length"]])
        at += part["length"]
    return plain
