"""The code's language, as far as a program can judge it: docstrings, names, lengths (tests/language.py).

`python tests/language.py` lists what breaks a rule, by package and file. A file or function that has to be longer says
why: `# long: reason`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator

import pytest
from language import (
    PACKAGES,
    Finding,
    Source,
    documented_sources,
    empty_names,
    listed,
    long_files,
    long_functions,
    sources,
    undocumented,
)

EVERYWHERE = (*PACKAGES, "tests")
CHECKS: dict[str, Callable[[Iterable[Source]], list[Finding]]] = {
    "docstrings": undocumented,
    "names": empty_names,
    "functions": long_functions,
    "files": long_files,
}


@pytest.fixture(scope="module", autouse=True)
def trees_are_no_garbage() -> Iterator[None]:
    """The nodes of all files are millions: to look through them for garbage takes longer than all else."""
    gc.disable()
    yield
    sources.cache_clear()
    gc.enable()


@pytest.mark.parametrize("rule", CHECKS)
def test_the_rules_hold(rule: str) -> None:
    files = documented_sources() if rule == "docstrings" else sources(EVERYWHERE)
    findings = CHECKS[rule](files)
    shown = "\n".join(listed(rule, findings))
    assert not findings, f"{len(findings)} findings:\n{shown}"


# That each check can fail


def findings_in(check: Callable[[Iterable[Source]], list[Finding]], text: str) -> list[str]:
    return [finding.what for finding in check([Source("a.py", text)])]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""Note."""\n\ndef f():\n    pass\n', ["f"]),
        ('"""Note."""\n\nasync def f():\n    pass\n', ["f"]),
        ('"""Note."""\n\ndef f():\n    """Said."""\n    def inner():\n        pass\n', []),
        ('"""Note."""\n\ndef _f():\n    pass\n', []),
        ('"""Note."""\n\nclass A:\n    """Said."""\n\n    def f(self):\n        pass\n', ["A.f"]),
        ('"""Note."""\n\nclass A:\n    def f(self):\n        """Said."""\n', ["A"]),
        ('"""Note."""\n\nclass _A:\n    def f(self):\n        pass\n', []),
        ('"""Note."""\n\nclass A:\n    """Said."""\n\n    def __len__(self):\n        return 0\n', []),
        ("x = 1\n", ["module"]),
        ("", []),
    ],
)
def test_what_is_public_needs_a_docstring(text: str, expected: list[str]) -> None:
    assert findings_in(undocumented, text) == expected


def test_a_base_may_document_a_method_and_a_stranger_may_not() -> None:
    base = '"""Note."""\n\nclass Base(Protocol[T]):\n    """Said."""\n\n    def run(self):\n        """Said."""\n\n'
    between = 'class Between(work.Base[int]):\n    """Said."""\n\n'
    derived = 'class {}({}):\n    """Said."""\n\n    def run(self):\n        pass\n\n'
    text = base + between + derived.format("Far", "Between") + derived.format("Alone", "object")
    assert findings_in(undocumented, text) == ["Alone.run"]


def test_setters_and_overloads_have_their_docstring_elsewhere() -> None:
    text = (
        '"""Note."""\n\n@overload\ndef f(x: int): ...\n\ndef f(x):\n    """Said."""\n\n'
        'class A:\n    """Said."""\n\n    @property\n    def x(self):\n        """Said."""\n\n'
        "    @x.setter\n    def x(self, value):\n        pass\n"
    )
    assert findings_in(undocumented, text) == []


@pytest.mark.parametrize(
    "text",
    [
        "found = 1",
        "for one in []: pass",
        "[one for one in []]",
        "def f(theirs): pass",
        "f = lambda his: his",
        "self.made = 1",
        "a, *some = [1]",
        "def _told(): pass",
        "with f() as ours: pass",
        "import x as said",
        "if (found := 1): pass",
        "class A:\n    found: int",
    ],
)
def test_names_that_say_nothing_are_found_wherever_they_are_bound(text: str) -> None:
    assert len(findings_in(empty_names, text)) == 1


def test_names_that_say_more_or_are_only_read_are_not() -> None:
    assert findings_in(empty_names, "found_rows = one_row = cost = done = 1\nprint(found)\nx.one()\nf(made=1)") == []


def test_fields_that_users_have_in_their_json_are_not_either() -> None:
    assert findings_in(empty_names, "class Finding:\n    found: str\n") == []
    assert findings_in(empty_names, "class Other:\n    found: str\n\nfound = 1") == ["found", "found"]


def test_what_is_long_needs_a_reason() -> None:
    body = "    x = 1\n" * 60
    assert findings_in(long_functions, f"def f():\n{body}") == ["f: 61 lines"]
    assert findings_in(long_functions, f"def f():\n    # long: a table\n{body}") == []
    assert findings_in(long_functions, f'def f():\n    """F.\n\n    long: a table.\n    """\n{body}') == []
    assert findings_in(long_functions, f"def f():\n{body[: 48 * 10]}") == []
    assert findings_in(long_files, "x = 1\n" * 300) == ["300 lines"]
    assert findings_in(long_files, "# long: a table\n" + "x = 1\n" * 300) == []
    assert findings_in(long_files, '"""Note.\n\nlong: a table.\n"""\n' + "x = 1\n" * 300) == []


def test_comments_for_tools_do_not_count() -> None:
    assert Source("a.py", "x = 1  # why\n# noqa: E501\ny = '# no'  # type: ignore[misc]\n").comments == 1
