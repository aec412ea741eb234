"""Problems: rows with a question and a known answer become what samples are drawn for. Each row has one fate.

What a row calls its fields is the recipe's; GSM8K's answers hold a worked chain before `####`, of which the gold answer
is what follows, MATH's solutions have it in a box. HumanEval's tests define `check`, which is called with the program's
function: without that call they test nothing. A problem whose answer nobody could check is dropped here, before
anything is paid for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, get_args

import pyarrow as pa

from gristmill.model.processing.chat.conversation import BadSample
from gristmill.model.processing.segments import Segment
from gristmill.stages.containers import ReadConfig, Record
from gristmill.stages.read.reading import RECORD
from gristmill.stages.text.options import options_of, place_of
from gristmill.stages.text.samples import SampleStage, columns_of
from gristmill.stages.text.seeds import density, excerpt
from gristmill.synth.evolve.template import NoTemplate, template
from gristmill.synth.evolve.variants import variants
from gristmill.synth.verify.answers.final import boxed
from gristmill.synth.verify.choice import LETTERS
from gristmill.synth.verify.verdict import Kind, Problem

PROBLEM = (
    ("kind", pa.string()),  # maths | choice | code
    ("text", pa.string()),  # the question
    ("gold", pa.string()),
    ("choices", pa.list_(pa.string())),
    ("tests", pa.list_(pa.string())),
    ("prelude", pa.string()),
    ("entry_point", pa.string()),
    ("domain", pa.string()),
    ("language", pa.string()),
)
"""Columns that say what a problem is."""
SCHEMA = pa.schema(
    [
        *RECORD,
        ("content", pa.string()),  # 128-bit hash of the problem
        ("url", pa.string()),
        *PROBLEM,
        ("date", pa.string()),
        ("source", pa.string()),
    ],
    metadata={"gristmill.format": "1"},
)
KINDS: tuple[Kind, ...] = get_args(Kind)
_CHECK = re.compile(r"^def check\(candidate\b", re.MULTILINE)
_CALL = re.compile(r"^check\(", re.MULTILINE)
_PLACE = re.compile(r"\{(question|tests)\}")
LONGEST = 100_000
"""Characters of a question, or of all tests, that are still a problem."""


class Posed(NamedTuple):
    """A problem, and what tells it from others; or the reason why a row is none, with the offending value."""

    problem: Problem | None = None
    content: str = ""
    reason: str | None = None
    value: str | None = None
    error: None = None
    source: str | None = None  # of a variant: the problem that it comes from


@dataclass(frozen=True)
class Problems(SampleStage[Posed]):
    """Outputs `text` (the problems), `screened` (their keys, by content) and fates. `kind` of all problems of a run.

    Of fields: `question` and `answer`, and `context`, a text before the question; `choices` of a choice; `tests`,
    `prelude` and `entry_point` of code (HumanEval: test, prompt, entry_point; MBPP: test_list), with `setup`, which is
    run before the tests and may use the program. `domain` and `language` may be absent from a row; then they are what
    `default_domain` and `default_language` say. `gold_after`: the gold answer is what follows the last of it in
    `answer`, where it is there, else what its last box holds; empty: all of it. `answer` None: rows have none.
    Of a seed, `excerpt` characters of `question` are shown, and one with fewer signs of mathematics than `least_maths`
    in a thousand words is none (`stages.text.seeds`). `variant`: in place of a problem of maths its n-th variant, with
    other numbers and the answer that they have (`synth.evolve`), which `variant_seed` decides; 0: the problem.
    """

    name: ClassVar[str] = "problems"
    VERSION: ClassVar[int] = 2
    schema: ClassVar[pa.Schema] = SCHEMA
    judgement: ClassVar[type[Posed]] = Posed

    kind: Kind = "maths"
    question: str = "question"
    answer: str | None = "answer"
    gold_after: str = "####"
    context: str = ""
    excerpt: int = 2000
    least_maths: float = 0.0
    variant: int = 0
    variant_seed: int = 0
    choices: str = "choices"
    tests: str = "test"
    setup: str = "test_setup_code"
    prelude: str = "prompt"
    entry_point: str = "entry_point"
    domain: str = "domain"
    language: str = "language"
    default_domain: str = ""
    default_language: str = "en"
    read: ReadConfig = field(default_factory=ReadConfig)
    seconds_per_record: float | None = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}: one of {', '.join(KINDS)}")
        if self.excerpt < 1 or self.least_maths < 0:
            raise ValueError(f"excerpt={self.excerpt}: 1 or more; least_maths={self.least_maths}: 0 or more")
        if self.variant < 0 or (self.variant and (self.kind != "maths" or not self.answer or not self.gold_after)):
            raise ValueError(
                f"variant={self.variant}: 0, or the number of one, of problems of kind maths whose `answer` has a"
                " worked solution before `gold_after`"
            )
        if not self.question or self.answer == "":
            raise ValueError("question, answer: name the fields; an answer that is null: rows have none")

    def formed(self, item: Record, row: Mapping[str, Any]) -> Posed:
        """The problem of a row. Raises BadSample: no_field, not_text, empty, too_long, lone_surrogate, no_choices,
        unknown_choice, no_tests, no_maths; no_solution, no_variant and the reasons of NoTemplate."""
        source = None
        if self.kind == "code":
            problem = self._code(row)
        elif self.kind == "seed":
            problem = self._seed(row)
        elif self.kind == "choice":
            problem = self._choice(row)
        else:
            problem = self._problem(row, gold=self._gold(row))
            if self.variant:
                problem, source = self._varied(row, problem)
        texts = (problem.question, problem.gold, *problem.choices, *problem.tests, problem.prelude)
        if max(map(len, texts)) > LONGEST or sum(map(len, problem.tests)) > LONGEST:
            raise BadSample("too_long", f"{max(map(len, texts)):,} characters, at most {LONGEST:,}")
        content = json.dumps([self.kind, *texts], ensure_ascii=False)
        try:
            content.encode()
        except UnicodeEncodeError:
            raise BadSample("lone_surrogate") from None
        return Posed(problem, content, source=source)

    def columns(self, item: Record, sample: Posed) -> dict[str, Any]:
        """Of a problem: those of SCHEMA that are not of RECORD."""
        problem = sample.problem
        assert problem is not None
        columns = columns_of(item, sample.content, problem.kind, [Segment(problem.question)])
        del columns["parts"]
        columns["source"] = sample.source or columns["source"]
        names = ("gold", "prelude", "entry_point", "domain", "language")
        lists = {"choices": list(problem.choices), "tests": list(problem.tests)}
        return columns | lists | {name: getattr(problem, name) for name in names}

    def _problem(self, row: Mapping[str, Any], **fields: Any) -> Problem:
        question = fields.pop("question", None) or _text(row, self.question)
        if context := _optional(row, self.context).strip():
            question = f"{context}\n{question}"
        return Problem(
            self.kind,
            question,
            domain=_optional(row, self.domain) or self.default_domain,
            language=_optional(row, self.language) or self.default_language,
            **fields,
        )

    def _gold(self, row: Mapping[str, Any]) -> str:
        if self.answer is None:
            return ""
        answer = row.get(self.answer)
        if isinstance(answer, int | float) and not isinstance(answer, bool):
            return str(answer)
        text = _text(row, self.answer)
        if not self.gold_after:
            return text.strip()
        if self.gold_after in text:
            gold = text.rpartition(self.gold_after)[2].strip()
        else:
            gold = boxes[-1].strip() if (boxes := boxed(text)) else text.strip()
        if not gold:
            raise BadSample("empty", self.answer)
        return gold

    def _varied(self, row: Mapping[str, Any], problem: Problem) -> tuple[Problem, str]:
        """The variant of a problem, and what it comes from."""
        solution, mark, gold = _text(row, str(self.answer)).rpartition(self.gold_after)
        if not mark:
            raise BadSample("no_solution", str(self.answer))
        try:
            rows = list(variants(template(problem.question, solution, gold), self.variant, self.variant_seed))
        except NoTemplate as error:
            raise BadSample(error.reason) from None
        if len(rows) < self.variant:
            raise BadSample("no_variant", str(len(rows)))
        question, answer, source = (rows[-1][name] for name in ("question", "answer", "source"))
        return replace(problem, question=question, gold=answer.rpartition("####")[2].strip()), source

    def _choice(self, row: Mapping[str, Any]) -> Problem:
        options, labels = options_of(row.get(self.choices), self.choices)
        gold = "" if self.answer is None else LETTERS[place_of(row.get(self.answer), options, labels)]
        return self._problem(row, gold=gold, choices=tuple(options))

    def _seed(self, row: Mapping[str, Any]) -> Problem:
        text = _text(row, self.question)
        if (signs := density(text)) < self.least_maths:
            raise BadSample("no_maths", f"{signs:.1f}")
        return self._problem(row, question=excerpt(text, self.excerpt))

    def _code(self, row: Mapping[str, Any]) -> Problem:
        given = row.get(self.tests)
        tests = tuple(given) if isinstance(given, list) else (given,) if isinstance(given, str) else ()
        if not tests or not all(isinstance(test, str) and test.strip() for test in tests):
            raise BadSample("no_tests", self.tests)
        prelude, name = _optional(row, self.prelude), _optional(row, self.entry_point)
        whole = "\n".join(tests)
        if _CHECK.search(whole) and not _CALL.search(whole):
            if not name.isidentifier():
                raise BadSample("no_tests", f"{self.tests} defines check, and {self.entry_point} names no function")
            tests = (*tests, f"check({name})")
        if setup := _optional(row, self.setup).strip():
            tests = (setup, *tests)
        question = _optional(row, self.question) or prelude
        if not question:
            raise BadSample("no_field", self.question)
        fields = {"question": question, "tests": tests, "prelude": prelude}
        return self._problem(row, entry_point=name, **fields)


def problem_of(row: Mapping[str, Any]) -> Problem:
    """The problem of a row of SCHEMA."""
    return Problem(
        kind=row["kind"],
        question=row["text"],
        gold=row["gold"],
        choices=tuple(row["choices"]),
        tests=tuple(row["tests"]),
        prelude=row["prelude"],
        entry_point=row["entry_point"],
        language=row["language"],
        domain=row["domain"],
    )


def prompt_of(problem: Problem, template: str) -> str:
    """What is asked: the question, with the options of a choice below it, in place of `{question}`; the tests of a
    program in place of `{tests}`, for those that alone say what a function is called."""
    options = "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, problem.choices, strict=False))
    texts = {"question": problem.question + options, "tests": "\n".join(problem.tests)}
    return _PLACE.sub(lambda place: texts[place[1]], template)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise BadSample("no_field" if value is None else "not_text", name)
    if not value.strip():
        raise BadSample("empty", name)
    return value


def _optional(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name) if name else None
    return value if isinstance(value, str) else ""
