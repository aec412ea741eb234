"""`grist runs`, `grist show` of a training, `grist lr-fit`: answers for people in 80 columns of ASCII, and JSON."""

from __future__ import annotations

import ast
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from trained import STEP, commit_model, put_run, steps
from two_versions import grist

from gristmill.lake.store.base import Store
from gristmill.lake.versions.lease import Lease
from gristmill.model.runs.curve import curve_of
from gristmill.model.train.schedule import PeakLaw
from gristmill.orchestration.show import runs as show_runs
from gristmill.orchestration.show.curves import draw_curve
from gristmill.orchestration.show.terminal import Terminal

KEY = "ab" * 32
RATES = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """As most terminals are."""
    monkeypatch.delenv("GRIST_LAKE", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def lease(store: Store) -> Iterator[None]:
    """The work of KEY is under way."""
    with Lease(store, "nano.pretrain") as lease:
        lease.announce("train", [KEY])
        yield


def text_of(*args: str, lake: Store) -> str:
    """What the command prints for people: plain ASCII that fits."""
    result = grist(*args, lake=lake)
    assert result.exit_code == 0, result.output
    assert result.stdout.isascii()
    assert max(map(len, result.stdout.splitlines())) <= 80
    return result.stdout


def json_of(*args: str, lake: Store) -> Any:
    """The JSON document that it prints."""
    result = grist(*args, "--json", lake=lake)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def planted(store: Store, sizes: tuple[int, ...] = (300_000, 1_000_000, 3_000_000)) -> list[str]:
    """Models whose last losses are parabolas around B = 0.7."""
    law, names = PeakLaw(0.7), []
    for tokens in sizes:
        for rate in RATES:
            loss = 3 + 20 * tokens**-0.2 + 0.1 * math.log(rate / law.peak(tokens)) ** 2
            name = f"m{tokens}-{round(rate * 1e4)}"
            commit_model(store, name, steps([9.0] * 39 + [loss, loss]), tokens=tokens, peak_lr=rate)
            names.append(name)
    return names


@pytest.mark.usefixtures("lease")
def test_runs_lists_what_runs_and_what_was_broken_off(store: Store) -> None:
    put_run(store, KEY, steps([4.0, 4.0], planned=40, tokens=50_000, seconds=2.0, seconds_left=75.4, skipped=True))
    put_run(store, "cd" * 32, [], dataset="nano.other", world=4, host="elsewhere", started=0.0, alive=60.0)
    text = " ".join(text_of("runs", lake=store).split())
    assert "nano.pretrain abababababab running" in text
    assert "step 2 of 40, loss 4.0000, 25,000 tok/s, 2 skipped, 0:01:15 left" in text
    assert "nano.other cdcdcdcdcdcd ended" in text and "days ago without a result" in text
    assert "step 0 of 40 4 ranks on elsewhere, process" in text and "since 1970-01-01 00:00 UTC" in text
    rows = json_of("runs", lake=store)
    assert [(row["key"], row["state"], row["step"]) for row in rows] == [
        (KEY, "running", 2),
        ("cd" * 32, "ended", 0),
    ]
    assert rows[0]["loss"] == 4.0 and rows[1]["loss"] is None


def test_runs_of_a_lake_without_any(store: Store) -> None:
    assert "nothing is trained in" in text_of("runs", lake=store) and json_of("runs", lake=store) == []


def test_how_long_ago_in_the_largest_unit_that_fits() -> None:
    assert [show_runs._ago(seconds) for seconds in (0.4, 119, 120, 7199, 7200, 172_800)] == [
        "0 s",
        "119 s",
        "2 min",
        "120 min",
        "2 h",
        "2 days",
    ]


def test_show_draws_a_run_by_the_beginning_of_its_key(store: Store) -> None:
    losses = [2 + 5 * math.exp(-i / 10) for i in range(1, 31)]
    losses[11] = math.nan
    metrics = steps(losses, planned=40, since=20)
    put_run(store, KEY, [*metrics[:11], *steps(losses, planned=40, skipped=True)[11:12], *metrics[12:]])
    text = text_of("show", KEY[:8], lake=store)
    for words in (
        f"run  {KEY}",
        "steps     30 of 40",
        "resumed   after step 20 (vertical lines)",
        "skipped   1 step: 12",
        ".. each step   oo smoothed   !! skipped",
        "learning rate",
    ):
        assert words in text
    plots = [line[1:69] for line in text.splitlines() if line.startswith("|")]
    assert len(plots) == 14 + 5
    # 40 steps in 68 columns, from 1 to 40: step 20 is the gridline, nothing is drawn behind step 30
    assert {line[33] for line in plots[:10]} >= {"|"} and all(set(line[53:]) <= {" "} for line in plots)
    assert "!" in plots[13] and plots[13].index("!") in (18, 19, 20)
    shown = json_of("show", KEY[:8], lake=store)
    assert shown["run"] == KEY and shown["losses"][11] is None and shown["skipped"] == [12] and shown["resumed"] == [20]
    assert shown["losses"][0] == losses[0] and shown["rates"] == [1e-3 * i for i in range(1, 31)]


def test_show_of_a_trained_model_ends_with_its_curves(store: Store) -> None:
    commit_model(store, "nano.pretrain", steps([4.0, 3.0, 2.0]), tokens=12_345)
    result = grist("show", "nano.pretrain", lake=store)
    assert result.exit_code == 0, result.output
    about, _, training = result.stdout.partition("\nCurves\n")
    assert "nano.pretrain@v1" in about and "4.0000 at first" in training and "oo smoothed" in training
    shown = json_of("show", "nano.pretrain", lake=store)
    assert shown["dataset"] == "nano.pretrain" and shown["training"]["losses"] == [4.0, 3.0, 2.0]
    commit_model(store, "imported", [])
    assert "Curves" not in grist("show", "imported", lake=store).stdout
    assert "training" not in json_of("show", "imported", lake=store)


def test_show_says_what_it_knows_of_what_is_neither(store: Store) -> None:
    put_run(store, KEY, [])
    assert "no step was done yet" in text_of("show", KEY, lake=store)
    for ref in ("abababac", "nope", "ab@v1"):
        result = grist("show", ref, lake=store)
        assert result.exit_code == 1 and f"there is no dataset '{ref.partition('@')[0]}'" in result.stderr


def test_lr_fit_finds_the_planted_law_and_prints_what_to_paste(store: Store) -> None:
    names = planted(store)
    text = text_of("lr-fit", *names, "--tokens", "1000000000", lake=store)
    for words in (
        "peak LR = 0.7 * tokens^-0.32",
        "free slope  -0.320 +- 0.000 (standard error)",
        "mean of a target over the last 5% of the steps of training",
        f"1,000,000,000    {PeakLaw(0.7).peak(10**9):.3g}",
        "  optim: {lr: {b: 0.7, exponent: -0.32}}",
        ".. law   -- tried   XX best",
    ):
        assert words in text
    shown = json_of("lr-fit", *names, "--tokens", "1000000", lake=store)
    assert shown["b"] == pytest.approx(0.7) and [len(size["rates"]) for size in shown["sizes"]] == [5, 5, 5]
    assert shown["predicted"][0]["lr"] == pytest.approx(PeakLaw(0.7).peak(10**6))
    assert shown["snippet"] == "optim: {lr: {b: 0.7, exponent: -0.32}}"


def test_lr_fit_refuses_with_every_reason(store: Store) -> None:
    names = planted(store, (3_000_000,))
    result = grist("lr-fit", *names, lake=store)
    assert result.exit_code == 1 and "D=3,000,000: runs of at least 2 sizes are needed" in result.stderr
    result = grist("lr-fit", *names[:3], lake=store)
    assert "the lowest loss is at the largest rate tried, 0.008" in result.stderr
    assert "add a run of this size with a peak LR of 0.016" in result.stderr and len(result.stderr.splitlines()) == 2


def test_a_terminal_has_dots_and_colours_unless_it_has_no_such_characters() -> None:
    curve = curve_of(steps([4.0, 3.0, 2.0]))
    drawn: dict[str, str] = {}
    for charset in ("utf-8", "latin-1"):
        screen = io.TextIOWrapper(io.BytesIO(), charset)
        console = Terminal(file=screen, width=80, force_terminal=True, color_system="standard", legacy_windows=False)
        draw_curve(console, curve)
        screen.flush()
        drawn[charset] = screen.buffer.getvalue().decode(charset)  # type: ignore[attr-defined]
    assert any("\u2801" <= character <= "\u28ff" for character in drawn["utf-8"]) and "\x1b[3" in drawn["utf-8"]
    assert "oo smoothed" not in drawn["utf-8"] and "smoothed" in drawn["utf-8"]
    assert "\\x1b" not in drawn["utf-8"]  # colours are colours, not escaped text
    plain = "".join(part.partition("m")[2] or part for part in drawn["latin-1"].split("\x1b["))
    assert "oo" in plain and plain.isascii()


@pytest.mark.parametrize("losses", [[4.0], [4.0, 4.0], [math.nan], [math.nan, 3.0]])
def test_the_shortest_runs_are_drawn(losses: list[float]) -> None:
    console = Console(file=io.StringIO(), width=80)
    draw_curve(console, curve_of([STEP] if losses == [4.0] else steps(losses)))
    console = Console(file=io.StringIO(), width=30)
    draw_curve(console, curve_of(steps(losses)))


def test_a_long_run_is_drawn_whole(store: Store) -> None:
    metrics = steps([9.0 - 8.0 * i / 30_000 for i in range(30_000)])
    console = Console(file=(screen := io.StringIO()), width=80)
    draw_curve(console, curve_of(metrics))
    plots = [line[1:69] for line in screen.getvalue().splitlines() if line.startswith("|")]
    assert plots[0][0] == "o" and plots[13][-1] == "o"


def test_the_law_is_drawn_for_two_sizes(store: Store) -> None:
    text = text_of("lr-fit", *planted(store, (300_000, 3_000_000)), lake=store)
    assert "-0.320 (two sizes leave no error)" in text


def test_looking_at_trainings_loads_no_torch(store: Store) -> None:
    """They are looked at often, and torch takes seconds."""
    put_run(store, KEY, steps([4.0, 3.0]))
    code = (
        "import sys\nfrom gristmill.orchestration.cli.main import app\n"
        f"for words in (['runs'], ['show', {KEY[:8]!r}]):\n"
        f"    app([*words, '--lake', {store.uri!r}], standalone_mode=False)\n"
        "print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0 and "learning rate" in done.stdout, done.stderr
    loaded = set(ast.literal_eval(done.stderr.strip().splitlines()[-1]))
    assert "uniplot" in loaded and not loaded & {"ray", "prefect", "torch", "pandas", "boto3", "tensorboard", "wandb"}
