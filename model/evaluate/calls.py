"""Calls of tools judged step by step: they parse, the tools exist, the arguments fit, and they are those expected.

Each step asks more than the one before, so a reason is how far a call came. Which of several calls comes first is free;
arguments are compared as JSON.
Source: the checks of the Berkeley Function Calling Leaderboard (AST evaluation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.model.processing.chat.tools import BadSample, canonical, check_arguments

STEPS = ("no_call", "no_list", "unknown_tool", "bad_arguments", "other_call")
"""Why calls are wrong, in the order in which it is asked."""


def call_fault(
    calls: Sequence[Mapping[str, Any]] | None, tools: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]
) -> str | None:
    """What is wrong with calls, one of STEPS; None: they are right. `calls` None: what stands there is no list of them.
    Each call has `name` and `arguments`, each tool `name` and perhaps `parameters`, a JSON schema."""
    if calls is None:
        return "no_list"
    if not calls:
        return "no_call"
    schemas = {tool["name"]: tool.get("parameters") for tool in tools}
    if any(call["name"] not in schemas for call in calls):
        return "unknown_tool"
    for call in calls:
        parameters = schemas[call["name"]]
        if parameters is None:
            continue
        try:
            check_arguments(call["name"], parameters, call["arguments"])
        except BadSample:
            return "bad_arguments"
    return None if _in_order(calls) == _in_order(expected) else "other_call"


def reached(fault: str | None) -> dict[str, bool]:
    """Which steps calls passed: `parsed`, `known` tools, `valid` arguments."""
    step = len(STEPS) if fault is None else STEPS.index(fault)
    return {
        "parsed": step >= STEPS.index("unknown_tool"),
        "known": step >= STEPS.index("bad_arguments"),
        "valid": step >= STEPS.index("other_call"),
    }


def _in_order(calls: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted(canonical([call["name"], call["arguments"]]) for call in calls)
