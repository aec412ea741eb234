"""Preferences: which lines are pairs, what is learned of them, and what became of every record."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from preferences import pair, preferences

from gristmill.lake.store.objects import read_table
from gristmill.lake.versions.versions import Versions
from gristmill.stages.containers import Record
from gristmill.stages.text.preference import Preference

PAIR = {"prompt": "Where?", "chosen": "There, please.", "rejected": "No."}
USER, GOOD, BAD = (
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "There, please."},
    {"role": "assistant", "content": "No."},
)
IN_PARTS = {"role": "user", "content": [{"type": "text", "text": "Where?"}]}
BEFORE = [USER, {"role": "assistant", "content": "Who asks?"}, {"role": "user", "content": "I do."}]


def kept(store, *rows, **preference):
    """The rows of the only shard."""
    folder = Path(store.uri).with_name("in")
    return read_table(store, preferences(store, folder, rows, **preference).manifest.shards[0]).to_pylist()


def sides(row):
    """Both sides of a stored pair, each as (text of its tokens, text that is learned)."""
    both, at = [["", ""], ["", ""]], 0
    for part in row["parts"]:
        text = row["text"][at : at + part["length"]]
        side = both[at >= row["rejected_at"]]
        side[0] += text
        side[1] += text if part["learn"] else ""
        at += part["length"]
    assert at == len(row["text"])
    return [tuple(side) for side in both]


CHOSEN = ("<|user|>Where?<|end|><|assistant|>There, please.<|end|><|endoftext|>", "There, please.<|end|>")
REJECTED = ("<|user|>Where?<|end|><|assistant|>No.<|end|><|endoftext|>", "No.<|end|>")


@pytest.mark.parametrize(
    ("row", "names"),
    [
        (PAIR, {}),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, {}),
        ({"prompt": [USER], "chosen": "There, please.", "rejected": [BAD]}, {}),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, {}),
        ({"prompt": "Where?", "chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 8.5}, {}),
        (
            {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
            {"prompt": "input", "chosen": "preferred_output", "rejected": "non_preferred_output"},
        ),
    ],
    ids=["texts", "messages", "mixed", "whole", "whole-and-prompt", "openai"],
)
def test_every_form_of_a_pair_is_the_same_pair(store, row, names):
    (stored,) = kept(store, row, **names)
    assert sides(stored) == [CHOSEN, REJECTED]
    assert stored["kind"] == "preference"


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("Where?", IN_PARTS),
        ([IN_PARTS], USER),
        (" Where?\n", USER),
        ([{"from": "human", "value": "Where?"}], USER),
        ("", USER),
        (" ", USER),
        ([], USER),
        ({"messages": []}, USER),
    ],
    ids=["whole-in-parts", "in-parts", "with-spaces", "of-sharegpt", "empty", "blank", "no-messages", "openai-empty"],
)
def test_a_prompt_beside_whole_conversations_is_compared_as_it_is_read(prompt, asked):
    row = {"prompt": prompt, "chosen": [asked, GOOD], "rejected": [asked, BAD]}
    formed = Preference().judge(Record(0, 0, 0, "other", "jsonl", row=row))
    assert (formed.reason, formed.value) == (None, None)
    texts = ["".join(part.text for part in side) for side in (formed.chosen, formed.rejected)]
    assert texts == [CHOSEN[0], REJECTED[0]]


def test_nothing_is_learned_before_the_sides_part(store):
    (row,) = kept(store, {"prompt": BEFORE, "chosen": [GOOD], "rejected": [BAD]})
    assert [learned for _, learned in sides(row)] == ["There, please.<|end|>", "No.<|end|>"]
    assert all("Who asks?" in text for text, _ in sides(row))
    # and neither where the turn that both have in common stands in the sides
    (other,) = kept(store, {"chosen": [*BEFORE, GOOD], "rejected": [*BEFORE, BAD]})
    assert sides(other) == sides(row)


def test_a_prompt_beside_whole_conversations_with_a_system_message_is_theirs(store):
    whole = {"chosen": [*BEFORE, GOOD], "rejected": [*BEFORE, BAD], "system": "Be brief."}
    rows = kept(store, {"prompt": "I do. ", **whole}, {"prompt": BEFORE, **whole, "system": "Be kind."})
    systems = [row["text"].partition("<|end|>")[0] for row in rows]
    assert systems == ["<|system|>Be brief.", "<|system|>Be kind."]


def test_tools_are_of_both_sides(store):
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "find", "arguments": "{}"}}]}
    (row,) = kept(store, {"prompt": [USER], "chosen": [call], "rejected": [BAD], "tools": [tool]})
    assert all(text.startswith('<|system|><|tool|>[{"name":"find"') for text, _ in sides(row))
    assert sides(row)[0][1].startswith("<|tool_call|>")


BROKEN = [
    ({**PAIR, "rejected": " There, please.\n"}, "same_answers"),
    ({**PAIR, "chosen": "  "}, "empty_turn"),
    ({**PAIR, "rejected": []}, "empty_turn"),
    ({**PAIR, "rejected": 4}, "not_text"),
    ({"prompt": "Where?", "chosen": "There."}, "no_field"),
    ({"chosen": "There.", "rejected": "No."}, "no_field"),
    ({**PAIR, "prompt": [USER, GOOD]}, "bad_order"),
    ({"chosen": [USER, GOOD], "rejected": [{**USER, "content": "When?"}, BAD]}, "other_prompt"),
    ({"prompt": "When?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "other_prompt"),
    ({"prompt": "There, please.", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "other_prompt"),
    ({"prompt": BEFORE, "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "other_prompt"),
    ({"prompt": " ", "chosen": "There.", "rejected": "No."}, "no_field"),
    ({"prompt": [USER], "chosen": [GOOD], "rejected": [GOOD, USER, BAD]}, "other_prompt"),
    ({"prompt": [USER], "chosen": [{**GOOD, "weight": 0}], "rejected": [BAD]}, "nothing_learned"),
    ({"prompt": [USER], "chosen": [{**GOOD, "mood": "fine"}], "rejected": [BAD]}, "unknown_field"),
    ({"prompt": [USER], "chosen": [USER, GOOD, USER], "rejected": [BAD]}, "last_turn_not_assistant"),
]


def test_every_line_has_one_fate(store, tmp_path):
    rows = [*(row for row, _ in BROKEN), b"{no", pair(1), pair(2), pair(1)]
    manifest = preferences(store, tmp_path, rows).manifest
    fates = [row for ref in manifest.fates for row in read_table(store, ref).to_pylist()]
    expected = Counter(f"preference.{reason}" for _, reason in BROKEN)
    assert Counter(row["reason"] for row in fates if row["fate"] == "dropped") == expected + Counter(
        ["exact.duplicate"]
    )
    assert Counter(row["fate"] for row in fates) == {"kept": 2, "dropped": len(BROKEN) + 1, "quarantined": 1}
    assert (manifest.form, manifest.kept.count) == ("preferences", 2)


def test_the_same_answers_the_other_way_round_are_another_pair(store):
    swapped = {**PAIR, "chosen": PAIR["rejected"], "rejected": PAIR["chosen"]}
    assert len(kept(store, PAIR, swapped, json.dumps(PAIR).encode())) == 2


def test_fields_that_are_one_are_refused(store, tmp_path):
    with pytest.raises(ValueError, match="prompt, chosen, rejected: 'prompt', 'chosen', 'chosen': name three fields"):
        preferences(store, tmp_path, [PAIR], rejected="chosen")
    assert not Versions(store).numbers("taste")
