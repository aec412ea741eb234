"""Statistics of a version, by form: what `grist stats` tells, and what a takedown takes off.

A manifest holds them as JSON, among others that only their pipeline knows (clusters, growth). Here is what the lake
itself reads and changes. Each class is read from that JSON by `of` and put back by `into`, which leaves the rest alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class TextStatistics:
    """Of records with a text. `text_bytes`: UTF-8. `languages`: label -> records, most first. `bytes_from`: lower edge
    of a bin, in bytes of text -> records."""

    documents: int = 0
    text_bytes: int = 0
    languages: Mapping[str, int] = field(default_factory=dict)
    bytes_from: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """From a manifest's statistics; what is not counted there is 0."""
        return cls(**{item.name: data[item.name] for item in fields(cls) if item.name in data})

    def into(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """`data` with these in place of what it counts of the kind."""
        return {**data, **{name: value for name, value in asdict(self).items() if name in data}}

    def of_rows(self, rows: pa.Table) -> TextStatistics:
        """Of rows that were counted here, so that the edges of their bins are those of `bytes_from`. A column `text` or
        `language` that these shards lack counts nothing."""
        text_bytes, bins, languages = 0, Counter[str](), Counter[str]()
        if "text" in rows.schema.names:
            edges = sorted(int(edge) for edge in self.bytes_from)
            lengths = pc.fill_null(pc.binary_length(rows["text"]), 0).to_numpy()
            text_bytes = int(lengths.sum())
            # the last edge that is not above the length: an edge belongs to the bin that it begins
            at = np.searchsorted(edges, lengths, side="right") - 1
            bins.update(str(edges[i]) for i in at if i >= 0)
        if "language" in rows.schema.names:
            languages.update(rows["language"].to_pylist())
        return TextStatistics(rows.num_rows, text_bytes, languages, bins)

    def plus(self, more: TextStatistics) -> TextStatistics:
        """Both together."""
        return TextStatistics(
            self.documents + more.documents,
            self.text_bytes + more.text_bytes,
            Counter(self.languages) + Counter(more.languages),
            Counter(self.bytes_from) + Counter(more.bytes_from),
        )

    def less(self, gone: TextStatistics) -> TextStatistics:
        """What is left when these records are gone; a language or a bin without records has no entry."""
        languages = _less(self.languages, gone.languages)
        return TextStatistics(
            documents=self.documents - gone.documents,
            text_bytes=self.text_bytes - gone.text_bytes,
            languages=dict(sorted(languages.items(), key=lambda item: (-item[1], item[0]))),
            bytes_from=_less(self.bytes_from, gone.bytes_from),
        )


def _less(before: Mapping[str, int], gone: Mapping[str, int]) -> dict[str, int]:
    """Counts less those that are gone; what comes to 0 has no entry, as if it had never been counted."""
    return {key: n - gone.get(key, 0) for key, n in before.items() if n > gone.get(key, 0)}


@dataclass(frozen=True)
class SourceShare:
    """One source of a mixture. `there`, `planned`, `drawn`: tokens that it has, that were asked for, that windows hold.
    `share`: of the mixture, as asked for. `full`: epochs drawn whole; `cut`: the hash below which a record was drawn
    once more. `samples`: whether its records are never cut."""

    source: str
    samples: bool
    share: float
    there: int
    planned: int
    drawn: int
    full: int
    cut: int


_OF_MEDIA = ("images", "crops", "window_crops", "clips", "frames", "window_frames")
"""What is counted of windows where a mixture has images, or clips, and else not named."""


@dataclass(frozen=True)
class WindowStatistics:
    """Of packed windows. `loss_tokens`: those that the loss counts. `waste`: the share of empty places. `documents`,
    `samples`: draws of records that may be cut, and that may not; `documents_cut`: those in several pieces,
    `documents_too_long`: those longer than a window. Of mixtures with images: `images`, `crops` of them that the
    encoder sees, and `window_crops`, of which a window has room for so many; None: no bound. Of mixtures with clips:
    `clips`, `frames` of them, and `window_frames`."""

    windows: int
    tokens: int
    loss_tokens: int
    waste: float
    documents: int
    documents_cut: int
    documents_too_long: int
    samples: int
    mixture: tuple[SourceShare, ...]
    images: int = 0
    crops: int = 0
    window_crops: int | None = None
    clips: int = 0
    frames: int = 0
    window_frames: int | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """From a manifest's statistics. Raises KeyError for those of another form."""
        names = [item.name for item in fields(cls) if item.name != "mixture"]
        counts = {name: data[name] for name in names if name in data or name not in _OF_MEDIA}
        return cls(**counts, mixture=tuple(SourceShare(**share) for share in data["mixture"]))

    def into(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """`data` with these in place of what it counts of the kind."""
        counts = {item.name: getattr(self, item.name) for item in fields(self)}
        counts = {name: count for name, count in counts.items() if name in data or name not in _OF_MEDIA}
        return {**data, **counts, "mixture": [asdict(share) for share in self.mixture]}

    def less(self, gone: WindowStatistics, window: int) -> WindowStatistics:
        """What is left when `gone` was cut out; its `mixture` says how many tokens of each source. `window`: tokens
        that one has room for."""
        windows, tokens = self.windows - gone.windows, self.tokens - gone.tokens
        drawn = {share.source: share.drawn for share in gone.mixture}
        return WindowStatistics(
            windows=windows,
            tokens=tokens,
            loss_tokens=self.loss_tokens - gone.loss_tokens,
            waste=share_wasted(tokens, windows * window),
            documents=self.documents - gone.documents,
            documents_cut=self.documents_cut - gone.documents_cut,
            documents_too_long=self.documents_too_long - gone.documents_too_long,
            samples=self.samples - gone.samples,
            mixture=_drawn_less(self.mixture, drawn),
            images=self.images - gone.images,
            crops=self.crops - gone.crops,
            window_crops=self.window_crops,
            clips=self.clips - gone.clips,
            frames=self.frames - gone.frames,
            window_frames=self.window_frames,
        )


def _drawn_less(mixture: Sequence[SourceShare], gone: Mapping[str, int]) -> tuple[SourceShare, ...]:
    return tuple(replace(share, drawn=share.drawn - gone.get(share.source, 0)) for share in mixture)


def share_wasted(tokens: int, places: int) -> float:
    """The share of places without a token, to a millionth; 0 where there are no places."""
    return round(1 - tokens / places, 6) if places else 0.0


@dataclass(frozen=True)
class EvaluationScore:
    """One metric of a task, of all sources together (`source` "") or of one, or of a `group` of items, as `language:
    de`. `low` to `high`: its interval."""

    task: str
    metric: str
    source: str
    value: float
    low: float
    high: float
    items: int
    group: str = ""


@dataclass(frozen=True)
class EvaluationStatistics:
    """Of a model's answers. `items`: those with a score, beside `unscored`; `written`: answers in words, of which `cut`
    were cut off. `warnings`: what a reader of the scores has to know. `devices` that the model ran on."""

    items: int
    unscored: int
    written: int
    cut: int
    scores: tuple[EvaluationScore, ...]
    warnings: tuple[str, ...]
    devices: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """From a manifest's statistics. Raises KeyError for those of another form."""
        counts = {name: data[name] for name in ("items", "unscored", "written", "cut")}
        scores = tuple(EvaluationScore(**score) for score in data["scores"])
        return cls(**counts, scores=scores, warnings=tuple(data["warnings"]), devices=tuple(data.get("devices", ())))
