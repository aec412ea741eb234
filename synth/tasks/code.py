"""Small Python functions and classes for completion and fill-in-the-middle. Notable choices:

- most functions are composed: which items, what of each, what of all, in one of several styles; name, docstring and
  body come from the same choices, so they agree;
- the examples in docstrings are run while they are written: what they show is what the code gives;
- comments and texts are partly in other languages, as in the world's code.
"""

import json
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from gristmill.synth.draw import Draw
from gristmill.synth.tasks.instructions import Row

# name, * being the items | the same in words | test | its opposite | parameters
_TESTS = {
    "int": """even_* | even * | x % 2 == 0 | x % 2 != 0 | ; odd_* | odd * | x % 2 == 1 | x % 2 == 0 |
positive_* | positive * | x > 0 | x <= 0 | ; *_divisible_by_three | * divisible by 3 | x % 3 == 0 | x % 3 != 0 |
*_above_limit | * above `limit` | x > limit | x <= limit | limit
*_up_to_limit | * up to `limit` | x <= limit | x > limit | limit
*_in_range | * from `low` to `high` | low <= x <= high | x < low or x > high | low, high""",
    "str": """long_* | * of more than five letters | len(x) > 5 | len(x) <= 5 |
short_* | * of at most `limit` letters | len(x) <= limit | len(x) > limit | limit
*_with_prefix | * that start with `prefix` | x.startswith(prefix) | not x.startswith(prefix) | prefix
*_with_letter | * that contain `letter` | letter in x | letter not in x | letter
palindromic_* | * that read the same backwards | x == x[::-1] | x != x[::-1] |
lower_case_* | * in lower case | x.islower() | not x.islower() | ; ascii_* | * in plain ASCII | x.isascii() | \
not x.isascii() |""",
}
# plural | singular | expression | type
_VIEWS = {
    "int": """squares | square | x * x | int ; doubles | double | 2 * x | int ; halves | half | x / 2 | float
absolute values | absolute value | abs(x) | int ; last digits | last digit | abs(x) % 10 | int
digit sums | digit sum | sum(int(digit) for digit in str(abs(x))) | int""",
    "str": """lengths | length | len(x) | int ; first letters | first letter | x[:1] | str
upper case forms | upper case form | x.upper() | str ; reversals | reversal | x[::-1] | str
vowel counts | vowel count | sum(letter in "aeiou" for letter in x.lower()) | int""",
}
# verbs | docstring | type | recursion: of nothing | of one and the rest, then start | step | result | one expression;
# @ are the views of the items or the items, % the items, & the view; ~ breaks a line
_GATHERS = """list,collect,select | Return @ as a list. | list[t] | [] | [T, *rest]
found = [] | found.append(T) | found | [T for x in xs if C]
sum,total,add_up | Return the sum of @. | t | 0 | T + rest
total = 0 | total += T | total | sum(T for x in xs if C)
multiply,product_of | Return the product of @, 1 if there are none. | t | 1 | T * rest
product = 1 | product *= T | product |
largest,max_of | Return the largest of @, or None if there are none. | t|None |  |
best = None | if best is None or T > best:~    best = T | best | max((T for x in xs if C), default=None)
average,mean_of | Return the mean of @, or 0.0 if there are none. | float |  |
total, count = 0, 0 | total += T~count += 1 | total / count if count else 0.0 |
sort,distinct | Return @, sorted and without repetition. | list[t] |  |
seen = set() | seen.add(T) | sorted(seen) | sorted({T for x in xs if C})
count | Return how many % there are. | int | 0 | 1 + rest
count = 0 | count += 1 | count | sum(1 for x in xs if C)
map | Map each of the % to its &. | dict[s, t] |  |
table = {} | table[x] = T | table | {x: T for x in xs if C}
group | Group the % by their &. | dict[t, list[s]] |  |
groups = {} | groups.setdefault(T, []).append(x) | groups |
iterate,each_of | Yield @, one after the other. | Iterator[t] |  |
 | yield T |  |""".splitlines()
# English, German, French, Spanish, Japanese, Chinese
_REMARKS = {
    "loop": "look at every item once | jedes Element genau einmal prüfen | examiner chaque élément une seule fois | "
    "aquí se mira cada elemento una vez | 要素を一つずつ調べる | 逐个检查元素",
    "keep": "this one counts | dieses Element zählt für das Ergebnis | cet élément est à garder | "
    "este sí cumple la condición | 条件に合うものだけ使う | 只处理符合条件的元素",
    "skip": "not one of those we want | überspringen, was nicht passt | on passe à l'élément suivant | "
    "este ya no cumple la condición | 条件に合わないので飛ばす | 不符合条件，跳过",
    "print": "Result | Ergebnis für das Beispiel | Résultat | Resultado según el ejemplo | 結果 | 结果",
}
_WORDS = "level radar otto apple pineapple Zoë naïve crème Łódź niño straße 東京 上海 melon Oslo kayak über garden été"
_NOUNS = {
    "int": "numbers:n,number values:v,value scores:score readings:reading offsets:offset",
    "str": "words:w,word terms:term labels:label keys:key tokens:token",
}
# parameter: type, examples
_GIVEN = {"limit": ("int", "3 5 8"), "low": ("int", "0 2 5"), "high": ("int", "9 12 20"),
          "prefix": ("str", '"le" "o" "n" "cr"'), "letter": ("str", '"e" "é" "o"')}  # fmt: skip
# names of $f; of $a; of $b, then code (#2-9 is a number) and, after >, an example
_CLASSICS = '''
== gcd, common_divisor; a, m, first; b, n, second
def $f($a: int, $b: int) -> int:
    """Return the greatest common divisor of two positive numbers.$x"""
    return $f($b, $a % $b) if $b else $a
> $f(#12-96, #12-96)
== flatten, leaves_of, unnest; nested, tree, values; part, item, node
def $f($a: list) -> list:
    """Return the leaves of nested lists, from left to right.$x"""
    flat = []
    for $b in $a:
        if isinstance($b, list):
            flat.extend($f($b))
        else:
            flat.append($b)
    return flat
> $f([#1-9, [#1-9, ["$w", #1-9]], [], "$w"])
== balanced, brackets_match, well_nested; text, source, line; stack, open_ones, waiting
def $f($a: str) -> bool:
    """Say whether every bracket of a text is closed, in the right order.$x"""
    pairs, $b = {")": "(", "]": "[", "}": "{"}, []
    for sign in $a:
        if sign in pairs.values():
            $b.append(sign)
        elif sign in pairs and (not $b or $b.pop() != pairs[sign]):
            return False
    return not $b
> $f("($w[#0-9] + 1) * {#0-9}")
== word_counts, count_words, frequencies; text, line, sentence; counts, table, seen
def $f($a: str) -> dict[str, int]:
    """Count how often each word occurs, in any case, most frequent first.$x"""
    $b: dict[str, int] = {}
    for word in $a.lower().split():
        $b[word] = $b.get(word, 0) + 1
    return dict(sorted($b.items(), key=lambda pair: (-pair[1], pair[0])))
> $f("$w garden $w #1-9")
== minutes_of, parse_time, to_minutes; text, time, clock; hours, h
def $f($a: str) -> int:
    """Turn a time such as 07:45 into minutes since midnight.$x"""
    $b, minutes = (int(part) for part in $a.split(":"))
    if not (0 <= $b < 24 and 0 <= minutes < 60):
        raise ValueError(f"{$a!r} is no time: hours go from 0 to 23, minutes from 0 to 59")
    return 60 * $b + minutes
> $f("#10-23:#10-59")'''


def _table(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.split(" |")] for line in text.splitlines() for row in line.split(" ; ")]


def _renamed(code: str, **names: str) -> str:
    """The code with the tables' short names (x, xs, T, C, s, t) exchanged."""
    return re.sub(r"\b(xs|x|T|C|s|t)\b", lambda match: names.get(match[1], match[1]), code)


def _shown(code: str, statements: list[str]) -> str:
    """The code with `$x` replaced by its docstring's examples: statements and what they give."""
    space: dict[str, Any] = {"Iterator": Iterator}
    exec(code, space)
    lines = []
    for statement in statements:
        lines.append(f"    >>> {statement}\n")
        if statement.partition(" = ")[0].isidentifier():
            exec(statement, space)
        elif (value := eval(statement, space)) is not None:  # a prompt shows nothing for None
            lines.append(f"    {value!r}\n")
    return code.replace("$x", f"\n\n{''.join(lines)}    " if lines else "")


def _items(draw: Draw, of: str) -> str:
    """A list of examples, as code."""
    words, numbers = draw.shuffled(_WORDS.split()), [draw.between(-9, 30) for _ in range(7)]
    return json.dumps((words if of == "str" else numbers)[: draw.between(3, 7)], ensure_ascii=False)


class _Function:
    """A function, or a method of a class of the items, in the making: what it does is drawn first, then how."""

    def __init__(self, draw: Draw, language: int | None, of: str, noun: str, method: bool = False) -> None:
        self.draw, self.language, self.of, self.method = draw, language, of, method
        self.noun, _, names = noun.partition(":")
        self.x, self.xs = draw.pick(names.split(",")), f"self.{self.noun}" if method else self.noun
        self.test, self.words, self.condition, self.opposite, given = draw.pick(_table(_TESTS[of]))
        self.given = given.split(", ") if given else []
        at = 2 * draw.below(len(_GATHERS) // 2)
        ((verbs, self.says, self.type, self.nothing, self.of_one),) = _table(_GATHERS[at])
        ((self.start, self.step, self.result, self.short),) = _table(_GATHERS[at + 1])
        numeric = self.type in ("t", "t|None", "float")
        views = [row for row in _table(_VIEWS[of]) if not (numeric and row[3] == "str")]
        needed = "&" in self.says or (numeric and of == "str") or (draw.chance(0.6) and verbs != "count")
        self.view, self.single, self.expression, self.gives = draw.pick(views) if needed else ["", "", "x", of]
        items = self.test.replace("*", self.noun)
        if "&" in self.says:
            items += f"_{'to' if verbs == 'map' else 'by'}_{self.single}"
        elif self.view:
            items = f"{self.view}_of_{items}"
        self.name = f"{draw.pick(verbs.split(','))}_{items}".replace(" ", "_")

    def _put(self, text: str) -> str:
        """Code of the tables in this function's own names."""
        text = _renamed(text, T=self.expression, C=self.condition, t=self.gives, s=self.of)
        return _renamed(text.replace("|", " | "), x=self.x, xs=self.xs)

    def _sentence(self) -> str:
        items = self.words.replace("*", self.noun)
        views = f"the {self.view} of the {items}" if self.view else f"the {items}"
        return self.says.replace("@", views).replace("%", items).replace("&", self.single)

    def _remark(self, place: str, indent: int) -> list[str]:
        if self.language is None or self.draw.chance(0.4):
            return []
        return [" " * indent + f"# {_REMARKS[place].split(' | ')[self.language]}"]

    def _loop(self) -> list[str]:
        """A loop over the items, by value or by position, that tests or skips."""
        lines = [*self._remark("loop", 4), f"    for {self.x} in {self.xs}:"]
        if self.draw.chance(0.2):
            lines[-1:] = [f"    for i in range(len({self.xs})):", f"        {self.x} = {self.xs}[i]"]
        step = self._put(self.step).split("~")
        if self.draw.chance(0.4):
            lines += [f"        if {self._put(self.opposite)}:", *self._remark("skip", 12), "            continue"]
            lines += [" " * 8 + line for line in step]
        else:
            lines += [f"        if {self._put(self.condition)}:", *self._remark("keep", 12)]
            lines += [" " * 12 + line for line in step]
        start = [f"    {self._put(self.start)}"] if self.start else []
        return [*start, *lines, *([f"    return {self._put(self.result)}"] if self.result else [])]

    def _recursive(self) -> list[str]:
        rest = f"{self.name}({', '.join([f'{self.xs}[1:]', *self.given])})"
        lines = [
            f"    if not {self.xs}:",
            f"        return {self.nothing}",
            f"    {self.x}, rest = {self.xs}[0], {rest}",
        ]
        return [*lines, f"    return {self._put(self.of_one)} if {self._put(self.condition)} else rest"]

    def code(self) -> str:
        """The function's text, `$x` standing where its examples go."""
        styles: list[Callable[[], list[str]]] = [self._loop, self._loop]
        if self.of_one and not self.method:
            styles.append(self._recursive)
        if self.short:
            styles.append(lambda: [f"    return {self._put(self.short)}"])
        first = "self" if self.method else f"{self.xs}: list[{self.of}]"
        given = ", ".join([first, *(f"{name}: {_GIVEN[name][0]}" for name in self.given)])
        head = [f"def {self.name}({given}) -> {self._put(self.type)}:", f'    """{self._sentence()}$x"""']
        return "\n".join([*head, *self.draw.pick(styles)()]) + "\n"

    def call(self, items: str) -> str:
        """A call with drawn arguments."""
        given = [self.draw.pick(_GIVEN[name][1].split()) for name in self.given]
        text = f"{items}.{self.name}" if self.method else self.name
        text += f"({', '.join(given if self.method else [items, *given])})"
        return f"list({text})" if "Iterator" in self.type else text


def _function(draw: Draw, language: int | None, main: bool) -> str:
    of = draw.pick(("int", "str"))
    function = _Function(draw, language, of, draw.pick(_NOUNS[of].split()))
    items = _items(draw, of)
    code = _shown(function.code(), [] if main or draw.chance(0.3) else [function.call(items)])
    if main:
        call = function.call(function.noun).replace('"', "'")  # it stands in a string
        label = _REMARKS["print"].split(" | ")[language or 0]
        code += f'\n\nif __name__ == "__main__":\n    {function.noun} = {items}\n'
        code += f'    print(f"{label}: {{{call}}}")\n'
    return code


def _class(draw: Draw, language: int | None) -> str:
    of = draw.pick(("int", "str"))
    noun = draw.pick(_NOUNS[of].split())
    functions = {f.name: f for f in (_Function(draw, language, of, noun, True) for _ in range(draw.between(2, 5)))}
    many, item = next((f.noun, f.x) for f in functions.values())
    methods = draw.shuffled([
        f"def add(self, {item}: {of}) -> None:\n    self.{many}.append({item})\n",
        f"def __len__(self) -> int:\n    return len(self.{many})\n",
        f"def __iter__(self) -> Iterator[{of}]:\n    yield from self.{many}\n",
    ])[: draw.between(1, 3)]  # fmt: skip
    methods.insert(0, f"def __init__(self, {many}: list[{of}]) -> None:\n    self.{many} = list({many})\n")
    methods += [function.code().replace("$x", "") for function in functions.values()]
    head = f'class {many.capitalize()}:\n    """A list of {many} that answers questions about them.$x"""\n\n'
    calls = [function.call(many) for function in functions.values()][: draw.between(1, 2)]
    body = textwrap.indent("\n".join(methods), "    ")
    return _shown(head + body, [f"{many} = {many.capitalize()}({_items(draw, of)})", *calls])


def _classic(draw: Draw) -> str:
    head, *lines = draw.pick(_CLASSICS.split("\n== ")[1:]).splitlines()
    names = {name: draw.pick(part.split(", ")) for name, part in zip("fab", head.split("; "), strict=True)}
    names |= {"x": "$x", "w": draw.pick(_WORDS.split())}
    text = re.sub(r"\$(\w+)", lambda match: names[match[1]], "\n".join(lines))
    text = re.sub(r"#(\d+)-(\d+)", lambda match: str(draw.between(int(match[1]), int(match[2]))), text)
    code, _, example = text.partition("\n> ")
    return _shown(f"{code}\n", [example])


def snippet(draw: Draw) -> Row:
    """`code`: one to three functions or a class, 5 to 60 lines of up to 100 characters."""
    kind = draw.pick(("function", "function", "function", "function", "class", "class", "mixed"))
    language = draw.pick((None, 0, 0, 0, 0, 1, 2, 3, 4, 5))
    while True:
        if kind == "class":
            parts = [_class(draw, language)]
        else:
            parts = [_classic(draw)] if kind == "mixed" else []
            functions = [_function(draw, language, False) for _ in range(draw.pick((0, 0, 1)))]
            parts += [*functions, _function(draw, language, draw.chance(0.3))]
        if any("Iterator" in part for part in parts):
            parts.insert(0, "from collections.abc import Iterator\n")
        lines = "\n\n".join(parts).splitlines()
        distinct = len({part.split("(")[0] for part in parts}) == len(parts)
        if distinct and 5 <= len(lines) <= 60 and max(map(len, lines)) <= 100:
            return Row(f"code_{kind}", {"code": "\n".join(lines) + "\n"})
