"""The instruction data is true to what it says about itself, by other people's oracles: doctest for the examples in
code, jsonschema for calls.
"""

import ast
import collections
import doctest
import json
import operator
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sample_files

sample = sample_files.sample


@pytest.fixture(scope="module")
def lines(sample: Path) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Each row of instruct/truth.jsonl with the line it speaks of, None for one that is no JSON."""
    rows = [json.loads(line) for line in (sample / "instruct/truth.jsonl").read_text(encoding="utf-8").splitlines()]
    files = {name: (sample / name).read_bytes().splitlines() for name in dict.fromkeys(row["file"] for row in rows)}
    assert [(row["file"], row["row"]) for row in rows] == [
        (name, i) for name, file_lines in files.items() for i in range(len(file_lines))
    ]
    return [(row, _object(files[row["file"]][row["row"]])) for row in rows]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        return json.loads(line.decode())
    except ValueError:
        return None


def test_instruct_truth_counts_what_is_broken(lines: Any) -> None:
    files = {row["file"] for row, _ in lines}
    assert files == {f"instruct/{name}.jsonl" for name in ("math", "code", "chat", "tools", "refusals")}
    reasons = collections.Counter((row["file"][9:-6], row["reason"]) for row, _ in lines if row["expected"] != "kept")
    assert reasons == {
        ("math", "unreadable"): 1, ("math", "duplicate"): 13, ("code", "duplicate"): 11, ("chat", "duplicate"): 13,
        ("chat", "unreadable"): 1, ("chat", "unknown_role"): 4, ("chat", "empty_turn"): 4, ("chat", "no_assistant"): 4,
        ("chat", "bad_order"): 4, ("tools", "unknown_tool"): 2, ("tools", "bad_arguments"): 5,
        ("tools", "bad_tool_schema"): 1,
    }  # fmt: skip
    assert all((row["reason"] is None) == (row["expected"] == "kept") for row, _ in lines)
    assert all((line is None) == (row["expected"] == "quarantined") for row, line in lines)
    ids = [line["id"] for _, line in lines if line]
    assert len(set(ids)) == len(ids) and all(isinstance(i, str) for i in ids)


def test_rows_of_a_duplicate_set_are_equal_and_no_others(lines: Any) -> None:
    families, heads = collections.defaultdict(set), set()
    for row, line in lines:
        if line is not None:
            content = json.dumps({name: value for name, value in line.items() if name != "id"})
            families[content].add(row["family"] or line["id"])
            heads |= {line["id"]} if row["family"] == line["id"] else set()
    assert all(len(reasons) == 1 for reasons in families.values())
    assert len(families) == sum(row["family"] is None for row, line in lines if line) + len(heads)
    assert len(heads) == len({row["family"] for row, _ in lines if row["family"]}) == 17


_SPOKEN = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "twice": 2, "half": 2, "third": 3, "quarter": 4, "fifth": 5, "dozen": 12, "rectangular": 2,
}  # fmt: skip


def test_word_problems_are_computed_right(lines: Any) -> None:
    operations = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
    problems = [line for row, line in lines if row["file"] == "instruct/math.jsonl" and line]
    assert len({re.sub(r"[0-9]+", "", p["answer"]) for p in problems}) > 300
    for problem in problems:
        *steps, last = problem["answer"].splitlines()
        words = re.findall(r"[a-z]+|[0-9]+", problem["question"].lower())
        known = {int(w) for w in words if w.isdigit()} | {_SPOKEN[w] for w in words if w in _SPOKEN}
        known |= {100 // n for n in known if "percent" in words}
        assert 2 <= len(steps) <= 4
        for step in steps:
            ((a, op, b, c),) = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", step)
            assert operations[op](int(a), int(b)) == int(c)
            assert {int(a), int(b)} <= known, problem
            known.add(int(c))
        assert last == f"#### {c}"


def test_code_runs_and_its_examples_hold(lines: Any) -> None:
    codes = [line["code"] for row, line in lines if row["file"] == "instruct/code.jsonl"]
    assert sum(not code.isascii() for code in codes) > 100
    examples = 0
    for code in codes:
        assert 5 <= code.count("\n") <= 60
        names = [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        space: dict[str, Any] = {"__name__": "sample"}
        exec(code, space)
        for name in names:
            assert space[name].__doc__
            for test in doctest.DocTestFinder(recurse=False).find(space[name], name, module=False, globs=space):
                result = doctest.DocTestRunner().run(test)
                assert not result.failed
                examples += result.attempted
    assert examples > 300


def _faults(line: dict[str, Any]) -> set[str]:
    """What is wrong with a conversation, by rules written down apart from the generator's."""
    turns, tools = line["messages"], {t["function"]["name"]: t["function"]["parameters"] for t in line.get("tools", ())}
    roles = [turn["role"] for turn in turns]
    faults = {"unknown_role"} if set(roles) - {"system", "user", "assistant", "tool"} else set()
    faults |= (
        {"empty_turn"} if any(not (t["content"] or "").strip() and not t.get("tool_calls") for t in turns) else set()
    )
    faults |= set() if "assistant" in roles else {"no_assistant"}
    faults |= {"bad_order"} if ("user", "user") in pairwise(roles) else set()
    calls = [call for turn in turns for call in turn.get("tool_calls", ())]
    assert [call["id"] for call in calls] == [turn["tool_call_id"] for turn in turns if turn["role"] == "tool"]
    for schema in tools.values():
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError:
            return faults | {"bad_tool_schema"}
    for function in (call["function"] for call in calls):
        if function["name"] not in tools:
            faults.add("unknown_tool")
            continue
        try:
            jsonschema.validate(json.loads(function["arguments"]), tools[function["name"]])
        except (ValueError, jsonschema.ValidationError):
            faults.add("bad_arguments")
    return faults


def test_conversations_are_broken_where_the_truth_says(lines: Any) -> None:
    spoken = [(row, line) for row, line in lines if line and "messages" in line]
    assert len(spoken) > 750
    for row, line in spoken:
        assert _faults(line) == ({row["reason"]} if row["expected"] == "dropped" else set()), (row, line)
    shapes = [(len(line["tools"]), len(line["messages"])) for _, line in spoken if "tools" in line]
    assert max(shapes)[0] >= 3 and max(length for _, length in shapes) >= 8


def test_prose_has_its_slots_filled_and_its_articles_right(lines: Any) -> None:
    texts = [text for _, line in lines if line for text in (line.get("question"), line.get("answer")) if text]
    texts += [turn["content"] or "" for _, line in lines if line for turn in line.get("messages", ())]
    assert len(texts) > 4000
    for text in texts:
        assert not re.search(r"\b[Aa] [aeio][a-z]|\{[a-z~]+\}|\[[a-z ]+\||  +[a-z]|\$[a-z]", text), text
