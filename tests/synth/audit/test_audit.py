"""Audits of verifiers: the counts are those of the labels, and real labelled solutions have no disagreement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gristmill.orchestration.cli.main import app
from gristmill.synth.audit.audit import Share, audit
from gristmill.synth.audit.samples import labelled
from gristmill.synth.verify.maths import Maths
from gristmill.synth.verify.verdict import Problem, Verdict

ROWS = [
    {"question": "?", "gold": "18", "chain": "#### 18", "right": True},
    {"question": "?", "gold": "18", "chain": "#### 19", "right": False},
    {"question": "?", "gold": "18", "chain": r"\boxed{18}", "right": False},
    {"question": "?", "gold": "18", "chain": "A: 17", "right": True},
    {"question": "?", "gold": "18", "chain": "no idea", "right": False},
    {"question": "?", "gold": "18", "chain": "#### 4a", "right": False},
]


def lines(*rows: object) -> list[bytes]:
    return [json.dumps(row).encode() + b"\n" for row in rows]


def test_the_table_counts_verdicts_by_label() -> None:
    result = audit(Maths(), labelled(lines(*ROWS)))
    table = result.table
    assert (table.accepted_right, table.accepted_wrong) == (1, 1)
    assert (table.rejected_right, table.rejected_wrong) == (1, 2)
    assert (table.undecided_right, table.undecided_wrong) == (0, 1)
    assert (result.precision.value, result.recall.value) == (0.5, 0.5)
    assert (result.undecided.part, result.samples) == (1, 6)
    assert {form: row.disagreements for form, row in result.forms.items()} == {"boxed": 1, "line": 1, "none": 0}
    assert [(item.at, item.right, item.outcome) for item in result.disagreements] == [
        ("line 3", False, "accepted"),
        ("line 4", True, "rejected"),
    ]
    assert result.reasons["maths-numeric.wrong_answer"] == 2


def test_every_form_is_read() -> None:
    gsm8k = {"question": "?", "ground_truth": "so\nA: 5", "6b": {"is_correct": False, "solution": "A: 6"}}
    tora = {"question": "?", "gt": "1,000", "code": ["#### 1000", "#### 7"], "pred": ["1000.0", "7"]}
    qwen = {"question": "?", "gt": "5", "code": ["#### 5", "#### 6"], "pred": ["5", "5"], "score": [True, False]}
    choice = {"gold": "B", "choices": ["one", "two"], "chain": "#### B", "right": True}
    samples = list(labelled([*lines(gsm8k, tora), b"\n", *lines(qwen, choice)]))
    assert [(sample.problem.gold, sample.right, sample.at) for sample in samples] == [
        ("5", False, "line 1, 6b"),
        ("1,000", True, "line 2, chain 0"),
        ("1,000", False, "line 2, chain 1"),
        ("5", True, "line 4, chain 0"),
        ("5", False, "line 4, chain 1"),
        ("B", True, "line 5"),
    ]
    assert samples[-1].problem.kind == "choice" and samples[-1].problem.choices == ("one", "two")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 1 is no JSON"),
        (b"[" * 100_000, "line 1 is no JSON"),
        (b'{"answer": "5"}', "line 1: no form of labelled samples has these keys: answer"),
        (b"[1]", "line 1: no form of labelled samples has these keys: list, not an object"),
        (b'{"gold": "5", "chain": 5, "right": true}', "line 1: chain is a text, not int"),
        (b'{"gold": "5", "chain": "5", "right": 1}', "line 1: right is true or false, not 1"),
        (b'{"gt": "5", "code": ["5"], "pred": []}', "line 1: 1 chains in code, 0 in pred"),
        (b'{"question": "", "ground_truth": "A: 5"}', "line 1: no model with solution and is_correct"),
    ],
)
def test_what_has_no_form_is_an_error_with_its_line(line: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(labelled([line]))


def test_an_empty_file_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no labelled sample"):
        audit(Maths(), labelled([]))


def test_the_interval_is_wilsons() -> None:
    # R: prop.test(8, 10, correct = FALSE)$conf.int
    assert Share(8, 10).interval == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert Share(0, 10).interval == pytest.approx((0.0, 0.2775328), abs=1e-6)
    assert Share(0, 0).interval is None and Share(0, 0).value is None


def test_the_command_prints_the_table_and_json(tmp_path: Path) -> None:
    file = tmp_path / "labelled.jsonl"
    file.write_bytes(b"".join(lines(*ROWS)))
    runner = CliRunner()
    drawn = runner.invoke(app, ["audit", str(file), "--show", "1"])
    assert drawn.exit_code == 0, drawn.output
    assert "Disagreements: 2" in drawn.output and "and 1 more" in drawn.output
    as_json = runner.invoke(app, ["audit", str(file), "--json", "--judge", "both"])
    document = json.loads(as_json.stdout)
    assert document["samples"] == 6 and document["precision"]["part"] == 1 and len(document["disagreements"]) == 2
    assert document["verifier"] == "maths@4|choice@2|code@2+steps@1"
    wrong = runner.invoke(app, ["audit", "-"], input=b'{"answer": 5}')
    assert wrong.exit_code == 2


@pytest.mark.parametrize("name", ["gsm8k_example_model_solutions", "tora_70b_gsm8k_outputs", "qwen_math_cot_8samples"])
def test_no_labelled_solution_is_judged_otherwise(name: str, shared_data: Path) -> None:
    with open(shared_data / "3_math_code" / f"{name}.jsonl", "rb") as file:
        result = audit(Maths(), labelled(file))
    assert result.samples > 300 and result.disagreements == ()
    assert result.undecided.part <= 1  # an answer with roots, which only computer algebra compares with 28


def test_gold_anywhere_would_accept_hundreds_of_wrong_chains(shared_data: Path) -> None:
    """The audit sees a bad verifier."""

    class Anywhere:
        id = "anywhere@1"

        def verify(self, problem: Problem, chain: str) -> Verdict:
            if problem.gold in chain:
                return Verdict("accepted", None, self.id)
            return Verdict("rejected", "anywhere.absent", self.id)

    with open(shared_data / "3_math_code" / "gsm8k_example_model_solutions.jsonl", "rb") as file:
        result = audit(Anywhere(), labelled(file))
    assert result.table.accepted_wrong > 150
    assert result.precision.interval is not None and result.precision.interval[1] < 0.9
