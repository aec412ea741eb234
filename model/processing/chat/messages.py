"""Messages of training data, in the field's common forms: what is no message to learn from says why.

OpenAI's form and ShareGPT's, tools and calls nested in `function` or flat, arguments as objects or as their JSON. Calls
are checked against the schemas of their tools, and no field is passed over (`fields`).
Source: OpenAI's chat completions and fine-tuning forms; ShareGPT as in LLaMA-Factory; Phi-4's `tools` in the system
message; Anthropic's `input_schema`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gristmill.model.processing.chat.fields import (
    REASONINGS,
    Rules,
    absent,
    either,
    read_reasoning,
    read_weight,
    the_same,
)
from gristmill.model.processing.chat.template import THINK
from gristmill.model.processing.chat.tools import (
    BadSample,
    canonical,
    check_arguments,
    read_arguments,
    read_json,
    read_schema,
)
from gristmill.model.processing.chat.turns import ROLES, Call, Role, Turn

_READ = ("role", "from", "content", "value", "weight")
_READ_OF: Mapping[Role, tuple[str, ...]] = {
    "system": ("tools",),
    "user": (),
    "assistant": ("refusal", *REASONINGS),
    "tool": ("tool_call_id", "name", "tool_name"),
}
_CALLING = ("tool_calls", "function_call")
_CALL, _CALLED = ("type", "function", "name", "arguments"), ("name", "arguments")
_TOOL = ("type", "function", "name", "description", "parameters", "input_schema", "inputSchema")


class Message(NamedTuple):
    """A message that was read. `ids` of its calls, None where one has none; `answers` and `name`: of a tool's message,
    the id of the call and the name of the tool."""

    number: int
    turn: Turn
    ids: tuple[str | None, ...] = ()
    answers: str | None = None
    name: str | None = None


def read_message(number: int, message: Any, tools: Sequence[Mapping[str, Any]], rules: Rules) -> Message:
    """Raises BadSample: unknown_role, unknown_field, bad_weight, not_text, two_reasonings, unsupported_content,
    unknown_tool, bad_arguments, lone_surrogate, empty_turn."""
    if not isinstance(message, Mapping):
        raise BadSample("not_text", f"a turn is a {type(message).__name__}")
    named = either(message, "role", "from")
    if not isinstance(named, str) or named not in ROLES:
        raise BadSample("unknown_role", named if isinstance(named, str) else f"a {type(named).__name__}")
    role = ROLES[named]
    if role != "assistant" and any(not absent(message.get(name)) for name in _CALLING):
        raise BadSample("bad_order", f"a call by {role}")
    rules.check(message, (*_READ, *_READ_OF[role], *_CALLING, *(REASONINGS if role != "assistant" else ())))
    the_same(message, "role", "from")
    loss_mask = read_weight(message.get("weight"), role)
    content, given = read_content(the_same(message, "content", "value"), rules), _given_calls(message)
    if named == "function_call":  # ShareGPT: the call is the text
        content, given = "", _called(content)
    content = _or_refusal(message, content)
    reasoning = _reasoning(message, role, content, rules)
    calls = _calls(given, tools, rules)
    texts = (content, reasoning, *(canonical([call.name, call.arguments]) for call in calls))
    if any(map(torn, texts)):
        raise BadSample("lone_surrogate", role)
    if not content.strip() and not calls:
        raise BadSample("empty_turn", role)
    # Of other roles nothing is learned whatever their weight: always True, so that equal conversations are equal.
    turn = Turn(role, content, calls, reasoning, loss_mask or role != "assistant")
    ids = tuple(_id(item.get("id")) for item in given or () if isinstance(item, Mapping))
    answers = _id(message.get("tool_call_id"))
    name = the_same(message, "name", "tool_name") if role == "tool" else None
    return Message(number, turn, ids, answers, name if isinstance(name, str) and name else None)


def read_tools(value: Any, rules: Rules) -> tuple[dict[str, Any], ...]:
    """Tools in OpenAI's form or flat, or either as a JSON string, as `{name, description, parameters}`. Raises
    BadSample: bad_tools, bad_tool_schema, unknown_field, lone_surrogate."""
    if isinstance(value, str):
        value = read_json(value, "bad_tools", "no JSON") if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadSample("bad_tools", f"a {type(value).__name__}")
    tools: dict[str, dict[str, Any]] = {}
    for number, item in enumerate(value):
        name, tool = named(item)
        if not name:
            raise BadSample("bad_tools", f"tool {number} has no name")
        if name in tools:
            raise BadSample("bad_tools", f"two tools {name}")
        if not isinstance(tool.get("description", ""), str | None):
            raise BadSample("bad_tools", f"description of {name}")
        for fields in (item, tool):
            rules.check(fields, _TOOL, "tools.")
        given = tool.get("description")
        optional: dict[str, Any] = {} if given is None else {"description": given}
        parameters = [tool[key] for key in ("parameters", "input_schema", "inputSchema") if tool.get(key) is not None]
        if len(parameters) > 1:
            raise BadSample("bad_tools", f"two schemas of {name}")
        if parameters:
            optional["parameters"] = read_schema(name, parameters[0])
        tools[name] = {"name": name, **optional}
    plain = tuple(tools.values())
    if torn(canonical(plain)):
        raise BadSample("lone_surrogate", "tools")
    return plain


def named(item: Any) -> tuple[str, Mapping[str, Any]]:
    """Name and fields of a tool or call, also where OpenAI's form wraps them in `function`; "" if it has no name."""
    fields = item if isinstance(item, Mapping) else {}
    fields = inner if isinstance(inner := fields.get("function"), Mapping) else fields
    name = fields.get("name")
    return name if isinstance(name, str) and name.strip() else "", fields


def read_content(content: Any, rules: Rules) -> str:
    """Text, or the texts of its parts end to end. Raises BadSample."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadSample("not_text", f"content is a {type(content).__name__}")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("text", "input_text", "output_text"):
            raise BadSample("unsupported_content", kind if isinstance(kind, str) else f"a {type(part).__name__}")
        if not isinstance(part.get("text"), str):
            raise BadSample("not_text", "a part without text")
        rules.check(part, ("type", "text"), "content.")
    return "".join(part["text"] for part in content)


def torn(text: str) -> bool:
    """Whether a text has half a surrogate pair, which is no Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _given_calls(message: Mapping[str, Any]) -> list[Any] | None:
    calls = message.get("tool_calls")
    if (old := message.get("function_call")) is not None:  # OpenAI before tools
        if not absent(calls):
            raise BadSample("unknown_field", "function_call beside tool_calls")
        return [old]
    if calls is not None and not isinstance(calls, list):
        raise BadSample("not_text", f"tool_calls is a {type(calls).__name__}")
    return calls


def _called(text: str) -> list[Any]:
    """ShareGPT's calls: a text that is one of them as JSON, or a list of them."""
    calls = read_json(text, "bad_arguments", "function_call: no JSON")
    return calls if isinstance(calls, list) else [calls]


def _or_refusal(message: Mapping[str, Any], content: str) -> str:
    """OpenAI's `refusal` is what the assistant says, in the place of content."""
    refusal = message.get("refusal")
    if absent(refusal):
        return content
    if not isinstance(refusal, str):
        raise BadSample("not_text", f"refusal is a {type(refusal).__name__}")
    if content.strip() and content != refusal:
        raise BadSample("unknown_field", "refusal beside content")
    return refusal


def _reasoning(message: Mapping[str, Any], role: Role, content: str, rules: Rules) -> str:
    reasoning = read_reasoning(message, role)
    if not reasoning or rules.reasoning == "omit":
        return ""
    if rules.reasoning == "refuse":
        raise BadSample("reasoning", role)
    if content.lstrip().startswith(THINK):  # some data has it twice: in a field of its own and in the text
        inline = content.lstrip().removeprefix(THINK).partition("</think>")[0].strip()
        if inline != reasoning:
            raise BadSample("two_reasonings", "content")
        return ""
    return reasoning


def _calls(value: list[Any] | None, tools: Iterable[Mapping[str, Any]], rules: Rules) -> tuple[Call, ...]:
    """Calls in OpenAI's form or flat, arguments as an object or as its JSON, checked against the tools' schemas.

    Raises BadSample: not_text, unknown_tool, bad_arguments (value: the tool and the JSON path of the first error).
    """
    schemas = {tool["name"]: tool.get("parameters") for tool in tools}
    calls = []
    for item in value or ():
        name, call = named(item)
        if not name:
            raise BadSample("not_text", "a call without a name")
        rules.check(item, _CALL, "tool_calls.")
        if call is not item:
            rules.check(call, _CALLED, "tool_calls.function.")
            if any(not absent(item.get(key)) and item[key] != call.get(key) for key in _CALLED):
                raise BadSample("unknown_field", "tool_calls.name beside function")
        if name not in schemas:
            raise BadSample("unknown_tool", name)
        arguments = read_arguments(name, call.get("arguments"))
        if (parameters := schemas[name]) is not None:
            check_arguments(name, parameters, arguments)
        calls.append(Call(name, arguments))
    return tuple(calls)


def _id(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None
