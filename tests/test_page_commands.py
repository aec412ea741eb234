"""No command of a page is left out without a reason, and every reason is still about a command."""

from __future__ import annotations

from typing import Any

import pytest
from page_commands import ELSEWHERE, ROOT, Walk, command, commands

WALKED = {"README", "evaluation", "model", "reasoning", "report", "speech", "training", "verification"}
"""Pages that tests/test_*_page*.py and tests/test_readme_commands.py walk: what is not in ELSEWHERE is run."""
OWN = {"architecture", "datasets", "exchange", "extending", "kickoff", "lake"}
"""Pages with a test of their own that gives every command."""
PAGES = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"README"}  # docs/README.md has no command


@pytest.mark.parametrize("page", sorted(PAGES - WALKED - OWN))
def test_every_command_of_another_page_has_its_place(page: str) -> None:
    starts = ELSEWHERE.get(page, {})
    assert [line for line in commands(page) if not line.startswith(tuple(starts))] == []


@pytest.mark.parametrize("page", ELSEWHERE)
def test_what_is_listed_stands_on_its_page(page: str) -> None:
    lines = commands(page)
    assert [start for start in ELSEWHERE[page] if not any(line.startswith(start) for line in lines)] == []


def test_a_command_is_read_as_a_shell_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "    grist show a; grist log b   # both\n\n```\nmake x && export A=$B\n"
        "grist run \\\n    web --set a='{b: 1}'\n```\n"
        "```yaml\ngrist: no\n```\ngrist run is only prose\n"
    )
    monkeypatch.setattr("page_commands.text_of", lambda page: text)
    assert commands("any") == ["grist show a", "grist log b", "make x", "export A=$B", "grist run web --set a='{b: 1}'"]
    assert command("any", "grist run") == ["grist", "run", "web", "--set", "a={b: 1}"]
    with pytest.raises(LookupError, match="any has no command `grist sing`"):
        command("any", "grist sing")


@pytest.mark.parametrize(
    ("lines", "laid_over", "why"),
    [
        (["make x"], {}, "nothing runs `make x`"),
        (["grist sing"], {}, "sing"),
        ([], {"more": {"grist run": "--set a=1"}}, "grist run"),
        ([], {"instead": {"s3://bucket": "here"}}, "s3://bucket"),
    ],
)
def test_a_page_that_has_changed_is_seen(
    lines: list[str], laid_over: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("page_commands.commands", lambda page: lines)
    with pytest.raises(AssertionError, match=why):
        Walk("any", **laid_over).run(monkeypatch)
