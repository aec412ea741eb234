"""Conversations with function calls, in OpenAI's form. Notable choices:

- a tool is text: its schema (`1..9` is a range, a list of one an array, of more an enum, `?` makes optional), values
  `with` which it is used, the request, the call, what comes back, what is said of it, and a way to ask for a detail;
- one set of values fills all of these: what is called is what was asked, what is said is what came back;
- shapes: one call, two at once, one after the other, a missing detail asked for first, a tool that fails;
- ids of calls depend on what is called, so that equal conversations are equal.
"""

import json
from functools import cache
from string import Template
from typing import Any

from gristmill.synth.draw import Draw, uuid_of
from gristmill.synth.tasks.instructions import Row, filled, phrase

Json = dict[str, Any]
_TOOLS = """
== book_table | Book a table in a restaurant.
schema {"restaurant": "text", "guests": "1..12", "time": "time", "seating?": ["inside", "terrace", "garden"]}
with house=[Golden|Blue|Old|Quiet] [Heron|Lantern|Anchor|Walnut]; n={n:2-9}; time={clock}; number=T{n:1000-9999}
with seat,where=[inside,inside|terrace,on the terrace|garden,in the garden]
ask [Please book|Book|I need] a table for {n} at the {house} at {time}, {where}.
call {"restaurant": "$house", "guests": $n, "time": "$time", "seating": "$seat"}
back {"status": "booked", "number": "$number"}
say Your table for {n} at the {house} is booked for {time}, {where}. The booking number is {number}.
open [Please book|I need] a table at the {house} at {time}, {where}. / For how many people? / We are {n}.
== find_connections | Find connections between two towns.
schema {"from": "text", "to": "text", "means": ["train", "bus", "ferry"], "after": "time", "max_changes?": "0..4"}
with a,b={town},{town}; by=[train|bus|ferry]; h=[08|09|11|14|17|19]; c=[2|3]; dep={h}:{n:10-55}; m={n:25-95}
ask Which {by} [can|should] I take from {a} to {b} after {h}:00? I don't want more than {c} changes.
call {"from": "$a", "to": "$b", "means": "$by", "after": "$h:00", "max_changes": $c}
back {"connections": [{"departure": "$dep", "minutes": $m, "changes": 0}]}
say There is a {by} from {a} at {dep}. It takes {m} minutes to {b}, [without a change|and you need not change].
open Which {by} can I take from {a} to {b}? At most {c} changes. / From what time on? / After {h}:00.
== get_forecast | Get the weather forecast of a town.
schema {"town": "text", "days": "1..7", "unit": ["celsius", "fahrenheit"]}
with t={town}; n={n:2-6}; sky=[rain|sunshine|showers|fog|snow|strong wind]
with unit,name,sign,high=[celsius,Celsius,°C,{n:4-28}|fahrenheit,Fahrenheit,°F,{n:41-84}]
ask [What will the weather be like|What is the forecast] in {t} for the next {n} days, in {name}?
call {"town": "$t", "days": $n, "unit": "$unit"}
back {"town": "$t", "summary": "$sky", "highest": $high}
say [Expect {sky} in {t}|The forecast for {t} is {sky}] over the next {n} days, with up to {high} {sign}.
open What will the weather be like in {t}? I'd like it in {name}. / For how many days? / For the next {n} days.
== create_event | Put an event in the calendar.
schema {"title": "text", "start": {"date": "date", "time": "time"}, "minutes": "5..480", "guests?": ["text"]}
with title=[Choir practice|Budget meeting|Piano lesson|Garden visit|Book club]; day=2026-0{n:3-9}-{n:10-28}
with time={clock}; m=[30|45|60|90|120]; a,b={who},{who}; number=E{n:100-999}
ask Put "{title}" in my calendar on {day} at {time} for {m} minutes and invite {a} and {b}.
call {"title": "$title", "start": {"date": "$day", "time": "$time"}, "minutes": $m, "guests": ["$a", "$b"]}
back {"event": "$number", "conflicts": []}
say "{title}" is in your calendar on {day} at {time}, for {m} minutes. {a} and {b} are invited.
open Put "{title}" in my calendar on {day} at {time}, with {a} and {b}. / How long will it take? / {m} minutes.
== enter_order | Enter a customer's order.
schema {"customer": {"name": "text", "town": "text"}, "lines": [{"item": "text", "crates": "1..99"}], "express": "flag"}
with who={person}; t={town}; g,h={food},{food}; m={n:2-40}; n={n:2-40}; number=A{n:1000-9999}; days={n:2-6}
with how,express=[by express,true|not by express,false]
ask [Please enter an order|Here is a new order]: {who} from {t} wants {m} crates of {g} and {n} of {h}, {how}.
call {"customer": {"name": "$who", "town": "$t"}, \
"lines": [{"item": "$g", "crates": $m}, {"item": "$h", "crates": $n}], "express": $express}
back {"order": "$number", "delivery_days": $days}
say Order {number} for {who} is entered: {m} crates of {g} and {n} of {h}. The delivery takes {days} days.
open An order from {who} in {t}: {m} crates of {g} and {n} of {h}. / Is it an express order? / It goes {how}.
== set_light | Change the light in a room.
schema {"room": ["kitchen", "hall", "study", "bedroom"], "brightness": "0..100", "colour?": ["white", "amber", "blue"]}
with room=[kitchen|hall|study|bedroom]; n={n:5-95}; colour=[white|amber|blue]
ask [Set|Change] the light in the {room} to {n} percent and make it {colour}.
call {"room": "$room", "brightness": $n, "colour": "$colour"}
back {"room": "$room", "brightness": $n}
say The light in the {room} is now {colour}, at {n} percent.
open Make the light in the {room} {colour}. / How bright shall it be, in percent? / {n} percent.
== search_recipes | Search recipes by ingredients.
schema {"ingredients": ["text"], "max_minutes": "5..240", "diet?": ["any", "vegetarian", "vegan"]}
with g,h={food},{food}; m=[40|60|75|90]; k={n:15-38}; diet=[vegetarian|vegan]
with dish=[soup|stew|curry|salad] with {g} and {h}
ask What can I cook with {g} and {h} in at most {m} minutes? It should be {diet}.
call {"ingredients": ["$g", "$h"], "max_minutes": $m, "diet": "$diet"}
back {"recipes": [{"title": "$dish", "minutes": $k}]}
say [How about a {dish}? It is {diet} and takes {k} minutes.|You could make a {diet} {dish}. It takes {k} minutes.]
open What can I cook with {g} and {h}? It should be {diet}. / How much time do you have? / At most {m} minutes.
== send_parcel | Register a parcel to be sent.
schema {"recipient": {"name": "text", "town": "text"}, "grams": "1..20000", "speed": ["standard", "express"]}
with who={person}; t={town}; g={n:2-95}00; speed=[standard|express]; number=P{n:10000-99999}; price={n:4-19}
ask [Send|Please send|I want to send] a parcel of {g} grams to {who} in {t}, by {speed} delivery.
call {"recipient": {"name": "$who", "town": "$t"}, "grams": $g, "speed": "$speed"}
back {"parcel": "$number", "price": $price}
say Your {speed} parcel to {who} in {t} has the number {number} and costs {price} dollars.
open I want to send a parcel to {who} in {t}, by {speed} delivery. / How heavy is it, in grams? / {g} grams.
== convert_units | Convert a quantity to another unit.
schema {"value": "number", "from": ["kilograms", "hours", "metres"], "to": ["grams", "minutes", "centimetres"]}
with n={n:2-90}; a,b,f=[kilograms,grams,1000|hours,minutes,60|metres,centimetres,100]; r=n*f
ask How many {b} are {n} {a}?
call {"value": $n, "from": "$a", "to": "$b"}
back {"result": $r}
say {n} {a} are {r} {b}.
open I'd like to convert [some|a number of] {a} to {b}. / How many {a}? / {n} {a}[.|, please.]
== find_books | Look for books in the town library.
schema {"subject": "text", "branch": ["north", "south", "harbour"], "only_available?": "flag", "limit?": "1..20"}
with s,topic=[beekeeping,Beekeeping|clocks,Clocks|old bridges,Old Bridges|mosses,Mosses|maps,Maps|weaving,Weaving]
with at=[north|south|harbour]; n={n:3-9}; shelf=[A|B|C|D]{n:10-99}; title=[All About|The World of] {topic}
ask Does the {at} branch have books about {s}? Show me at most {n}, only those that I can borrow now.
call {"subject": "$s", "branch": "$at", "only_available": true, "limit": $n}
back {"books": [{"title": "$title", "shelf": "$shelf"}]}
say [The {at} branch has one|There is one in the {at} branch]: "{title}", on shelf {shelf}.
open I'd like to borrow books about {s} now, at most {n}. / In which branch? / In the {at} branch.
== start_timer | Start a timer in the kitchen.
schema {"minutes": "1..180", "label?": "text"}
with n={n:3-55}; g={food}
ask [Set a timer|Start a timer|I need a timer] of {n} minutes for the {g}.
call {"minutes": $n, "label": "$g"}
back {"running": true, "minutes": $n}
say The timer for the {g} is running[: {n} minutes.|. It will ring in {n} minutes.]
open Start a timer for the {g}, please. / For how many minutes? / {n} minutes.
"""
_CLOCK = "[09|10|11|12|13|14|15|16|17|18|19|20]:[00|15|30|45]"
_PATTERNS = {"time": "^[0-2][0-9]:[0-5][0-9]$", "date": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
_SYSTEM = (
    "You are a helpful assistant. Use the tools when they are needed.",
    "Answer briefly and politely. Never make up what a tool can tell you.",
    "You help with everyday errands, with the tools that you have.",
    "You are the assistant of a family. Ask when a detail is missing.",
)


def _schema(short: Any) -> Json:
    """The JSON Schema of a short form, see above."""
    if isinstance(short, dict):
        properties = {name.removesuffix("?"): _schema(value) for name, value in short.items()}
        required = [name for name in short if not name.endswith("?")]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if isinstance(short, list):
        many = len(short) == 1
        return (
            {"type": "array", "items": _schema(short[0]), "minItems": 1} if many else {"type": "string", "enum": short}
        )
    if ".." in short:
        low, high = map(int, short.split(".."))
        return {"type": "integer", "minimum": low, "maximum": high}
    if short in _PATTERNS:
        return {"type": "string", "pattern": _PATTERNS[short]}
    return {"type": {"text": "string", "flag": "boolean", "number": "number"}[short]}


@cache
def _tools() -> dict[str, list[tuple[str, str]]]:
    """The lines of each tool, (word, rest), the first being ("about", description)."""
    tools = {}
    for block in _TOOLS.split("\n== ")[1:]:
        head, *lines = block.strip().splitlines()
        name, about = head.split(" | ")
        words = (line.partition(" ") for line in lines)
        tools[name] = [("about", about), *((word, rest) for word, _, rest in words)]
    return tools


def _tool(name: str) -> Json:
    lines = dict(_tools()[name])
    parameters = _schema(json.loads(lines["schema"]))
    return {"type": "function", "function": {"name": name, "description": lines["about"], "parameters": parameters}}


class _Use:
    """One use of a tool: everything said about it, with one set of values."""

    def __init__(self, draw: Draw, name: str) -> None:
        self.name, self.draw = name, draw
        self.values: dict[str, str] = {}
        for word, text in _tools()[name]:
            for assignment in text.split("; ") if word == "with" else ():
                names, _, template = assignment.partition("=")
                value = filled(draw, template, clock=filled(draw, _CLOCK), **self.values)
                if template == "n*f":
                    value = str(int(self.values["n"]) * int(self.values["f"]))
                parts = value.split(",") if "," in names else [value]
                self.values |= dict(zip(names.split(","), parts, strict=True))
        lines = dict(_tools()[name])
        self.ask, self.say = (phrase(draw, lines[word], **self.values) for word in ("ask", "say"))
        self.open = [phrase(draw, text, **self.values) for text in lines["open"].split(" / ")]
        self.arguments, self.result = (json.loads(Template(lines[w]).substitute(self.values)) for w in ("call", "back"))

    def call(self) -> Json:
        """The call as an assistant's message lists it."""
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        ident = f"call_{uuid_of(self.name, arguments)[:8]}"
        return {"id": ident, "type": "function", "function": {"name": self.name, "arguments": arguments}}


def _say(role: str, content: str | None, **more: Any) -> Json:
    return {"role": role, "content": content, **more}


def _calls(uses: list[_Use], remark: str | None, error: str | None = None) -> list[Json]:
    """The assistant's message that calls, and what the tools answer."""
    calls = [use.call() for use in uses]
    answers = [json.dumps({"error": error} if error else use.result, ensure_ascii=False) for use in uses]
    results = [_say("tool", text, tool_call_id=c["id"]) for c, text in zip(calls, answers, strict=True)]
    return [_say("assistant", remark, tool_calls=calls), *results]


def _turns(draw: Draw, shape: str, first: _Use, second: _Use, offered: list[str]) -> list[Json]:
    remark = draw.pick((None, None, None, "One moment, please.", "Let me see."))
    if shape == "two_at_once":
        ask = f"{first.ask} {draw.pick(('And another thing:', 'Also:', 'Then one more thing:'))} {second.ask}"
        return [_say("user", ask), *_calls([first, second], remark), _say("assistant", f"{first.say} {second.say}")]
    if shape == "detail_first":
        opening, question, reply = first.open
        turns = [_say("user", opening), _say("assistant", question), _say("user", reply)]
    elif shape == "what_can_you_do":
        abilities = [dict(_tools()[name])["about"] for name in offered]
        listed = ", ".join(text[0].lower() + text[1:-1] for text in abilities[:-1])
        last = abilities[-1][0].lower() + abilities[-1][1:-1]
        can = phrase(draw, f"I can {listed} and {last}. What [would you like|can I do for you]?")
        turns = [
            _say("user", draw.pick(("What can you do?", "Hello! What can you help me with?"))),
            _say("assistant", can),
        ]
        turns.append(_say("user", first.ask))
    else:
        turns = [_say("user", first.ask)]
    if shape == "failure":
        error = draw.pick(("service not available", "timeout", "try again later"))
        sorry = "I'm sorry, that did not work: the service does not answer. Shall I try again [later|in a moment]?"
        return [*turns, *_calls([first], remark, error), _say("assistant", phrase(draw, sorry))]
    turns += [*_calls([first], remark), _say("assistant", first.say)]
    if shape == "one_after_the_other":
        turns += [_say("user", second.ask), *_calls([second], None), _say("assistant", second.say)]
    if draw.chance(0.15):
        thanks, reply = draw.pick(
            (("Thank you!", "You're welcome."), ("Great, thanks.", "You're welcome. Have a nice day!"))
        )
        turns += [_say("user", thanks), _say("assistant", reply)]
    return turns


_SHAPES = (
    "one_call",
    "one_call",
    "one_call",
    "two_at_once",
    "one_after_the_other",
    "detail_first",
    "failure",
    "what_can_you_do",
)


def conversation(draw: Draw) -> Row:
    """A conversation that calls tools: `messages` and `tools`."""
    shape = draw.pick(_SHAPES)
    names = draw.shuffled(list(_tools()))
    first, second = _Use(draw, names[0]), _Use(draw, names[1])
    offered = draw.shuffled(names[: draw.between(2, 4)])
    turns = _turns(draw, shape, first, second, offered)
    if draw.chance(0.5):
        turns.insert(0, _say("system", draw.pick(_SYSTEM)))
    return Row(f"tools_{shape}", {"messages": turns, "tools": [_tool(name) for name in offered]})


# what is broken: the reason, the tool to break it with
BROKEN = {
    "undefined_tool": ("unknown_tool", "book_table"),
    "tool_not_offered": ("unknown_tool", "send_parcel"),
    "missing_required": ("bad_arguments", "enter_order"),
    "wrong_type": ("bad_arguments", "create_event"),
    "not_in_enum": ("bad_arguments", "set_light"),
    "out_of_range": ("bad_arguments", "get_forecast"),
    "arguments_not_json": ("bad_arguments", "find_connections"),
    "invalid_schema": ("bad_tool_schema", "start_timer"),
}


def broken_call(draw: Draw, what: str) -> Row:
    """A conversation with one of BROKEN."""
    reason, name = BROKEN[what]
    use, other = _Use(draw, name), draw.pick([n for n in _tools() if n != name])
    turns = [_say("user", use.ask), *_calls([use], None), _say("assistant", use.say)]
    tools = [_tool(name), _tool(other)]
    function, arguments = turns[1]["tool_calls"][0]["function"], use.arguments
    if what == "undefined_tool":
        function["name"] = f"{name}_now"
    elif what == "tool_not_offered":
        del tools[0]
    elif what == "invalid_schema":
        tools[0]["function"]["parameters"]["properties"]["minutes"]["type"] = "whole number"
    elif what == "missing_required":
        del arguments["customer"]["town"]
    else:
        wrong = {"wrong_type": ("minutes", "an hour"), "not_in_enum": ("room", "attic"), "out_of_range": ("days", 40)}
        arguments |= dict([wrong[what]]) if what in wrong else {}
    if reason == "bad_arguments":
        function["arguments"] = json.dumps(arguments, ensure_ascii=False)[
            : -7 if what == "arguments_not_json" else None
        ]
    return Row(what, {"messages": turns, "tools": tools}, reason)
