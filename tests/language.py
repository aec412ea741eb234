"""What can be checked of the code's language: docstrings, names that say nothing, lengths, how many comments.

It reads source with `ast` and `tokenize`, imports nothing of it, and reports findings by file. `tests/test_language.py`
judges them; `python tests/language.py` prints all of them, by package, for whoever mends them.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("filters", "synth", "model", "lake", "stages", "pipelines", "orchestration", "benchmarks")
EMPTY_NAMES = {"one", "found", "made", "some", "his", "hers", "theirs", "ours", "told", "said"}
"""Names that say that there is a thing, and not which."""
STORED = {("Checkout", "found"), ("Draft", "made"), ("Finding", "found"), ("ForgetReport", "made")}
"""(class, field): keys of JSON that users and lakes have, which a better name would break."""
FILE_LINES, FUNCTION_LINES = 300, 50
"""A file or function has fewer lines than this, or a reason."""
REASON = re.compile(r"\blong: \S")
"""In the docstring or a comment of what is longer: `# long: a table, one row a country`."""
CONTRACTS = {"identity"}
"""Methods that a contract documents for every class that has them, without being its base (stages/core/work.py)."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Finding:
    """Something to mend. line: 1-based. what: the name, or the name and its length."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.what}"


@dataclass(frozen=True)
class Source:
    """A parsed file. path: relative to the root of the repository."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree, kept: to walk through the repository's takes seconds, and each rule looks at them."""
        return list(ast.walk(self.tree))

    @cached_property
    def lines(self) -> list[str]:
        """Its lines."""
        return self.text.splitlines()

    @cached_property
    def comments(self) -> int:
        """How many comments it has, those of tools (noqa, type: ignore) not counted."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        comments = (token.string for token in tokens if token.type == tokenize.COMMENT)
        return sum(not re.match(r"#\s*(noqa|type: ignore|!)", comment) for comment in comments)


@cache
def sources(folders: tuple[str, ...], root: Path = ROOT) -> list[Source]:
    """The Python files in these folders, in order of their paths."""
    paths = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    return [Source(str(path.relative_to(root)), path.read_text()) for path in paths]


def documented_sources() -> list[Source]:
    """What needs docstrings: the packages, and modules that tests share."""
    helpers = [file for file in sources(("tests",)) if not Path(file.path).name.startswith("test_")]
    return [*sources(PACKAGES), *helpers]


# Docstrings


def undocumented(files: Iterable[Source]) -> list[Finding]:
    """Public modules, classes, functions and methods without a docstring.

    A method may have its docstring in a base class among these files: then it is said there. Public is what has no
    leading underscore on the way to it; functions in functions are not.
    """
    files = list(files)
    bases = _Bases(files)
    findings: list[Finding] = []
    for file in files:
        if not ast.get_docstring(file.tree) and file.text.strip():
            findings.append(Finding(file.path, 1, "module"))
        for owner, node in _public(file.tree):
            if ast.get_docstring(node) or (owner is not None and bases.document(owner, node.name)):
                continue
            name = node.name if owner is None else f"{owner.name}.{node.name}"
            findings.append(Finding(file.path, node.lineno, name))
    return findings


def _public(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[ast.ClassDef | None, Function | ast.ClassDef]]:
    """(class it is in, node) of every public class, function and method."""
    owner = tree if isinstance(tree, ast.ClassDef) else None
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if _is_overload_or_setter(node):
            continue
        yield owner, node
        if isinstance(node, ast.ClassDef):
            yield from _public(node)


def _is_overload_or_setter(node: Function | ast.ClassDef) -> bool:
    """Whether its docstring stands elsewhere: at the implementation, or at the getter."""
    names = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any(name == "overload" or name.endswith(".setter") for name in names)


class _Bases:
    """Which classes document which methods, found by the names of their bases."""

    def __init__(self, files: Iterable[Source]) -> None:
        self.classes: dict[str, list[ast.ClassDef]] = defaultdict(list)
        for file in files:
            for node in file.nodes:
                if isinstance(node, ast.ClassDef):
                    self.classes[node.name].append(node)

    def document(self, owner: ast.ClassDef, method: str) -> bool:
        """Whether a contract or a base of `owner`, at whatever distance, has a docstring for the method."""
        if method in CONTRACTS:
            return True
        waiting, seen = _base_names(owner), {owner.name}
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            for base in self.classes[name]:
                waiting += _base_names(base)
                if any(isinstance(n, Function) and n.name == method and ast.get_docstring(n) for n in base.body):
                    return True
        return False


def _base_names(node: ast.ClassDef) -> list[str]:
    """Last words of the bases: `Stage` of `work.Stage[Payload]`."""
    names = [ast.unparse(base).split("[")[0] for base in node.bases]
    return [name.split(".")[-1] for name in names]


# Names


def empty_names(files: Iterable[Source]) -> list[Finding]:
    """Variables, parameters, attributes and functions whose whole name says nothing; leading underscores count not."""
    findings = []
    for file in files:
        stored = _stored_fields(file.nodes)
        for node in file.nodes:
            name = _bound_name(node)
            if name is not None and name.lstrip("_") in EMPTY_NAMES and node not in stored:
                findings.append(Finding(file.path, node.lineno, name))  # type: ignore[attr-defined]
    return sorted(findings, key=lambda finding: (finding.path, finding.line))


def _stored_fields(nodes: Iterable[ast.AST]) -> set[ast.AST]:
    """The names of the fields in STORED, where their classes declare them."""
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    fields: set[ast.AST] = set()
    for owner in classes:
        for node in owner.body:
            if isinstance(node, ast.AnnAssign) and (owner.name, ast.unparse(node.target)) in STORED:
                fields.add(node.target)
    return fields


_BINDING = (ast.Name, ast.Attribute, ast.arg, ast.FunctionDef, ast.AsyncFunctionDef)
_BINDING += (ast.ExceptHandler, ast.MatchAs, ast.alias)


def _bound_name(node: ast.AST) -> str | None:
    """The name that a node gives to something."""
    if not isinstance(node, _BINDING):  # as most are: a match takes its time
        return None
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return name
        case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return name
        case ast.ExceptHandler(name=name) | ast.MatchAs(name=name) | ast.alias(asname=name):
            return name
    return None


# Lengths


def long_functions(files: Iterable[Source]) -> list[Finding]:
    """Functions of FUNCTION_LINES or more that give no reason."""
    findings = []
    for file in files:
        for node in file.nodes:
            if not isinstance(node, Function) or node.end_lineno is None:
                continue
            length = node.end_lineno - node.lineno + 1
            text = "\n".join(file.lines[node.lineno - 1 : node.end_lineno])
            if length >= FUNCTION_LINES and not REASON.search(text):
                findings.append(Finding(file.path, node.lineno, f"{node.name}: {length} lines"))
    return findings


def long_files(files: Iterable[Source]) -> list[Finding]:
    """Files of FILE_LINES or more that give no reason in their docstring or at the beginning of a line."""
    findings = []
    for file in files:
        docstring = ast.get_docstring(file.tree) or ""
        reason = REASON.search(docstring) or any(line.startswith("# long: ") for line in file.lines)
        if len(file.lines) >= FILE_LINES and not reason:
            findings.append(Finding(file.path, 1, f"{len(file.lines)} lines"))
    return findings


# A report


def report() -> Iterator[str]:
    """Everything, package by package: what is missing in each file, and how many comments there are."""
    missing = undocumented(documented_sources())
    for package in (*PACKAGES, "tests"):
        files = sources((package,))
        lines = sum(len(file.lines) for file in files)
        density = 100 * sum(file.comments for file in files) / max(lines, 1)
        yield f"== {package}: {len(files)} files, {lines:,} lines, {density:.1f} comments in 100 lines"
        yield from listed("no docstring", [finding for finding in missing if finding.path.startswith(f"{package}/")])
        yield from listed("empty name", empty_names(files))
        yield from listed("too long", [*long_files(files), *long_functions(files)])


def listed(title: str, findings: Sequence[Finding]) -> Iterator[str]:
    """A line a file: how many findings it has, and which."""
    by_file: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_file[finding.path].append(finding)
    for path, of_file in sorted(by_file.items()):
        items = ", ".join(f"{finding.what} ({finding.line})" for finding in of_file)
        yield f"{title:<12} {len(of_file):>3}  {path}: {items}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in report())
