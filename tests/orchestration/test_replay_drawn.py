"""What `grist replay` draws where it cannot say all, by a replay that has each such part."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from gristmill.lake.query.sampling import SampledRecord
from gristmill.lake.query.why import Place
from gristmill.orchestration.show.compare import CUT, draw_replay
from gristmill.pipelines.replay.replay import Change, Example, Replay

LONG = "flour " * 200


def record(text: str | None, why: str | None = None, place: Place | None = None) -> SampledRecord:
    return SampledRecord("r" * 32, "dropped", "language.low_score", None, text, why, place, {})


def drawn(full: bool) -> str:
    at = Place("r" * 32, "i" * 64, 7, 1000, 250, ("crawl/part-1.warc.gz",))
    examples = (
        Example(record(LONG, place=at), "language.language_score", 0.123456),
        Example(record(None, "gc took it"), None, None),
        Example(record("\x1b[31mred"), "url.word", "\x1b[31mx"),
    )
    change = Change("language.low_score", "passes the filters", 12_345, examples)
    replay = Replay(
        version="web@v3",
        settings=(("recipe.language.min_score", 0.65, None),),
        received=20_000,
        asked=19_999,
        verdicts=(("language.low_score", 12_345, 0), ("kept", 5_000, 5_000), ("passes the filters", 0, 12_345)),
        changes=(change,),
        passed=17_345,
        unmeasured=3,
        kept_at_most=16_000,
        is_exact=False,
    )
    out = StringIO()
    draw_replay(Console(file=out, width=200), replay, full)
    return out.getvalue()


def test_numbers_values_and_places_are_drawn_as_they_are() -> None:
    lines = [" ".join(line.split()) for line in drawn(full=False).splitlines()]
    assert lines[0] == "web@v3 with other settings, judged by its stored measures"
    assert "recipe.language.min_score 0.65 -> null" in lines
    at = lines.index("Fates")
    assert lines[at + 1 : at + 5] == [
        "web@v3 replayed change",
        "language.low_score 12,345 0 -12,345",
        "kept 5,000 5,000",
        "passes the filters 0 12,345 +12,345",
    ]
    assert "12,345 language.low_score -> passes the filters" in lines
    place = "crawl/part-1.warc.gz, record 7, bytes 1,000 to 1,250 decompressed"
    assert f"{'r' * 32} language.language_score 0.1235 {place}" in lines
    assert "no text: gc took it" in lines


def test_what_is_not_known_is_said_and_no_more_is_promised() -> None:
    words = " ".join(drawn(full=False).split())
    assert "1 record never came to the filters" in words
    assert "3 records would come to filters that have not measured them" in words
    assert "17,345 pass them, and at most 16,000 would be kept" in words and "so many would be kept" not in words


def test_a_text_is_cut_unless_it_is_asked_for_in_full_and_commands_no_terminal() -> None:
    short, full = drawn(full=False), drawn(full=True)
    assert short.count("flour") == -(-CUT // len("flour ")) and short.count(" ...") == 1
    assert full.count("flour") == 200 and " ..." not in full
    assert "\x1b" not in short + full
