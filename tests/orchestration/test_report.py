"""`grist report`: what stands on a page is what the lake has, and what is not there is left out."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from drafts import draft
from lake_builder import BROKEN, COPY, SHORT, Page, commit, mixed_pages, pages
from reports import headings, report, tables, words
from trained import commit_model, put_run, steps
from two_versions import grist

from gristmill.lake.store.base import Store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.report.page import write_report
from gristmill.orchestration.report.subject import Work, times
from gristmill.stages.train.job import Execution
from gristmill.stages.train.work import Train

SCORES = [
    {"task": "exact", "metric": "accuracy", "source": "", "value": 0.625, "low": 0.5, "high": 0.75, "items": 40},
    {"task": "exact", "metric": "accuracy", "source": "math@v1", "value": 0.5, "low": 0.25, "high": 0.75, "items": 10},
    {"task": "loss", "metric": "perplexity", "source": "", "value": 12.5, "low": 11.0, "high": 14.0, "items": 40},
]


@pytest.fixture(autouse=True)
def no_lake_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRIST_LAKE", raising=False)


def evaluation(store: Store, model: Any, accuracy: float = 0.625) -> Any:
    """A version of verdicts with scores, and without the answers."""
    scores = [SCORES[0] | {"value": accuracy}, *SCORES[1:]]
    statistics = {"items": 40, "unscored": 0, "written": 40, "cut": 3, "scores": scores, "warnings": ["few items"]}
    source = model.ref.model_copy(update={"role": "evaluated"})
    fields = {"form": "verdicts", "statistics": statistics, "sources": (source,)}
    return Versions(store).commit(draft("eval", f"{accuracy}", ["a"], **fields))


def test_the_numbers_are_those_of_the_manifest(store: Store, tmp_path: Path) -> None:
    m = commit(store, "web", mixed_pages())
    root = report(store, tmp_path, "web@v1")
    drawn = tables(root)
    tiles = {words(card.find("dt")): words(card.find("dd/b")) for card in root.xpath("//dl[@class='tiles']/div")}
    counts = {fate.capitalize(): str(getattr(m, fate).count) for fate in ("kept", "dropped", "quarantined")}
    assert tiles == {"Came in": str(m.received.count), **counts}
    for row, shown in zip(m.funnel, drawn["Records by stage of web@v1"], strict=True):
        dropped, quarantined = sum(row.dropped.values()), sum(row.quarantined.values())
        numbers = [shown[head] for head in ("Came in", "Passed", "Dropped", "Quarantined")]
        assert shown["Stage"] == row.stage and numbers == [
            str(n) for n in (row.received, row.passed, dropped, quarantined)
        ]
        assert shown["Of all that came in"].startswith(f"passed: {row.passed:,}, {row.passed / row.received:.1%}")
    reasons = {
        row["Reason"]: (row["Fate"], row["Records"])
        for row in drawn["Records of web@v1 by the reason that they went for"]
    }
    assert reasons == {
        "quality.too_few_words": ("dropped", "1"),
        "exact.duplicate": ("dropped", "1"),
        "read.not_a_page": ("dropped", "1"),
        "read.unreadable": ("quarantined", "1"),
    }
    (language,) = drawn["Languages of kept records"]
    assert (language["Language"], language["Records"], language["Share"]) == ("en", "2", "100.0%")
    assert m.digest in words(root)


def test_the_order_is_that_in_which_it_is_asked_for(store: Store, tmp_path: Path) -> None:
    commit(store, "web", mixed_pages())
    assert headings(report(store, tmp_path, "web")) == [
        "Funnel",
        "Why the rest went",
        "What was kept is like",
        "Examples of what was kept",
        "Examples of what went",
        "Where it comes from",
        "What it took",
        "How it was made",
    ]


def test_examples_have_text_reason_value_and_survivor(store: Store, tmp_path: Path) -> None:
    commit(store, "web", mixed_pages())
    root = report(store, tmp_path, "web")
    cards = {words(card.find("h4")): words(card) for card in root.xpath("//div[starts-with(@class, 'example ')]")}
    assert len(cards) == 6 + 4  # kept, and one for each reason
    assert (
        "value 12" in cards[SHORT.id].replace("value12", "value 12") and f"The text of {SHORT.url}." in cards[SHORT.id]
    )
    assert Page(COPY.survivor or "").id in cards[COPY.id]
    assert "No text: it left the pipeline before it had a text." in cards[BROKEN.id]


def test_a_section_without_data_is_left_out(store: Store, tmp_path: Path) -> None:
    commit(store, "web", pages(20))
    assert not {"Why the rest went", "Examples of what went", "Near duplicates"} & set(
        headings(report(store, tmp_path, "web"))
    )
    commit_model(store, "imported", [])
    assert headings(report(store, tmp_path, "imported")) == ["How it was made"]


def test_a_version_that_was_withdrawn_shows_nothing_of_its_data(store: Store, tmp_path: Path) -> None:
    commit(store, "web", mixed_pages())
    Versions(store).withdraw("web", 1, "asked to")
    root = report(store, tmp_path, "web@v1")
    assert "withdrawn (asked to)" in words(root) and "Funnel" in headings(root)
    assert "The text of" not in words(root) and not root.xpath("//div[starts-with(@class, 'example ')]")


def test_a_model_has_its_curve_gates_and_loss(store: Store, tmp_path: Path) -> None:
    losses = [4.0, 3.0, 2.5, 2.0, 1.5, 1.25, 1.0, 0.75]
    commit_model(store, "nano", steps(losses, since=4))
    root = report(store, tmp_path, "nano")
    (curve,) = root.xpath("//svg[starts-with(@aria-label, 'Loss, loss by step')]")
    label = curve.get("aria-label")
    assert "each step: 4 at 1, 0.75 at 8" in label
    each, smoothed = curve.xpath(".//polyline/@points")
    assert len(each.split()) == len(smoothed.split()) == len(losses)
    places = [tuple(map(float, point.split(","))) for point in each.split()]
    assert places == sorted(places)  # steps to the right, and a falling loss downwards
    assert [mark.text_content() for mark in curve.xpath(".//line[@class='mark']")] == ["resumed after step 4"]


def test_a_training_that_runs_has_a_page(store: Store, tmp_path: Path) -> None:
    put_run(store, "ab" * 32, steps([3.0, 2.0], planned=10))
    root = report(store, tmp_path, "abababab")
    assert "nano.pretrain" in words(root) and headings(root) == ["Training"]


def test_scores_have_their_intervals_and_their_model(store: Store, tmp_path: Path) -> None:
    model = commit_model(store, "nano", steps([2.0, 1.0]))
    evaluation(store, model)
    root = report(store, tmp_path, "eval@v1")
    whole, part, perplexity = tables(root)["Scores of eval@v1"]
    assert (whole["Value"], whole["95% interval"], whole["Items"], whole["Of"]) == (
        "62.5%",
        "50.0% to 75.0%",
        "40",
        "all",
    )
    assert part["Of"] == "math@v1" and perplexity["Value"] == "12.500" and perplexity["0 to 100%"] == ""
    circle = root.xpath("//svg[@aria-label='62.5% (50.0% to 75.0%)']/circle/@cx")
    assert circle == ["62.50%"]
    assert "An evaluation of nano@v1 on 40 items" in words(root) and "Caution: few items" in words(root)


def test_several_versions_are_one_page_with_what_they_share_first(store: Store, tmp_path: Path) -> None:
    web = commit(store, "web", mixed_pages())
    base, better = (commit_model(store, name, steps([4.0, 2.0])) for name in ("base", "better"))
    evaluation(store, base, 0.25)
    evaluation(store, better, 0.75)
    root = report(store, tmp_path, "web", "base", "better", "eval@v1", "eval@v2")
    refs = ["web@v1", "base@v1", "better@v1", "eval@v1", "eval@v2"]
    assert [words(head) for head in root.iter("h2")] == refs
    drawn = tables(root)
    rows = {row["Version"]: row for row in drawn["All versions on this page"]}
    assert list(rows) == refs and rows["web@v1"]["Kept"] == str(web.kept.count)
    accuracies = [row["Value"] for row in drawn["Scores of all evaluations"] if "accuracy" in row["Task and metric"]]
    assert accuracies == ["25.0%", "75.0%"]
    assert headings(root)[:3] == ["What came in, and what came of it", "What the models score", "Did it learn"]
    assert len(root.xpath("//svg[starts-with(@aria-label, 'Loss of ')]")) == 2


def test_a_lineage_links_to_what_is_on_the_page(store: Store, tmp_path: Path) -> None:
    first = commit(store, "web", pages(6))
    commit(store, "clean", pages(5), sources=[first.ref.model_copy(update={"role": "mixed"})])
    root = report(store, tmp_path, "web", "clean")
    (tree,) = root.xpath("//ul[@class='tree']")  # the other lineage is a part of it
    assert tree.xpath(".//a/@href") == ["#clean-v1", "#web-v1"]
    assert "crawl/a.warc.gz" in words(tree)


def test_time_is_that_of_receipts_and_shared_work_counts_once() -> None:
    shared = Work("a", "extract", 2.0, None, 10)
    train = Work("b", "train", 30.0, 4.0, 0)
    rows = times([shared, shared, Work("c", "extract", 1.0, 0.0, 5), train])
    assert [(row.stage, row.works, row.seconds, row.gpu_seconds, row.records) for row in rows] == [
        ("train", 1, 30.0, 120.0, 0),
        ("extract", 2, 3.0, 0.0, 15),
    ]


def test_the_same_versions_make_the_same_page_and_nothing_is_left_beside_it(store: Store, tmp_path: Path) -> None:
    commit(store, "web", mixed_pages())
    first = write_report(store, ["web"], tmp_path / "a" / "report.html")
    again = write_report(store, ["web@v1"], tmp_path / "a" / "again.html")
    assert first.read_bytes() == again.read_bytes()
    assert sorted(path.name for path in first.parent.iterdir()) == ["again.html", "report.html"]


def test_the_command_says_where_the_page_is(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(store, "web", mixed_pages())
    monkeypatch.chdir(tmp_path)
    result = grist("report", "web", lake=store)
    assert (result.exit_code, result.stdout.strip()) == (0, str(tmp_path / "report-web-v1.html"))
    about = json.loads(grist("report", "web", "-o", "other.html", "--json", lake=store).stdout)
    assert about == {"report": str(tmp_path / "other.html"), "versions": ["web"], "bytes": about["bytes"]}
    assert about["bytes"] == (tmp_path / "other.html").stat().st_size
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    grist("report", "web", "--open", lake=store)
    assert opened == [(tmp_path / "report-web-v1.html").as_uri()]


@pytest.mark.parametrize("ref", ["nope", "web@v9", "../etc"])
def test_what_is_not_there_is_an_error_and_no_page(store: Store, tmp_path: Path, ref: str) -> None:
    commit(store, "web", pages(3))
    result = grist("report", ref, "-o", str(tmp_path / "out" / "page.html"), lake=store)
    assert result.exit_code in (1, 2) and not (tmp_path / "out").exists()


def test_a_page_of_records_needs_no_torch(store: Store, tmp_path: Path) -> None:
    commit(store, "web", mixed_pages())
    arguments = ["report", "web", "-o", str(tmp_path / "page.html"), "--lake", store.uri]
    code = (
        "import sys\nfrom gristmill.orchestration.cli.main import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr, flush=True)\n"
        "import os\nos._exit(0)"  # as the command itself ends (orchestration/cli/main.py)
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    assert not set(ast.literal_eval(done.stderr.strip().splitlines()[-1])) & {
        "ray",
        "prefect",
        "torch",
        "boto3",
        "scipy",
    }


def test_a_large_funnel_is_cut_and_says_so(store: Store, tmp_path: Path) -> None:
    many = {f"p{i}": Page(f"https://example.org/{i}", f"quality.reason_{i:03}", "x") for i in range(60)}
    commit(store, "web", pages(70, **many))
    root = report(store, tmp_path, "web")
    assert len(tables(root)["Records of web@v1 by the reason that they went for"]) == 40 and "and 20 more" in words(
        root
    )


@pytest.mark.parametrize(
    ("execution", "held"),
    [
        (Execution(gpus=0.5), (1, 0.5)),
        (Execution("ray", ranks=4, cpus=2, gpus=0.5), (8, 2.0)),  # beside the work, which itself holds nothing
    ],
)
def test_a_training_holds_what_all_its_ranks_hold(execution: Execution, held: tuple[float, float]) -> None:
    assert Train(stage=None, config=None, execution=execution).held == held
