"""The demo's server: its address is taken from what it says, and it may say as much as it likes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import waiting

from gristmill.orchestration.demo import seeing

TALKS = """
import pathlib, sys, time
print("loading", flush=True)
print("listening at http://127.0.0.1:1/v1.", flush=True)
for _ in range(40):
    print("." * 8192, flush=True)  # a pipe holds 65,536 bytes
pathlib.Path(sys.argv[1]).touch()
time.sleep(3600)
"""


def script(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Lets a script stand for every grist command."""
    monkeypatch.setattr(seeing, "command", lambda *arguments: [sys.executable, "-c", text, *arguments])


def test_a_server_that_says_more_than_a_pipe_holds_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script(monkeypatch, TALKS)
    with seeing.served(str(tmp_path / "done")) as url:
        assert url == "http://127.0.0.1:1/v1"
        waiting.until((tmp_path / "done").exists, "the server said all that it had to say")
    assert capsys.readouterr().out.count("." * 8192) == 40


def test_a_server_that_does_not_start_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, "print('no such model'); raise SystemExit(4)")
    with pytest.raises(SystemExit, match="the server did not start, exit code 4"), seeing.served():
        pass
