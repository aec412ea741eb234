"""What the help of each command ends with: one line that can be typed, on the lake that the README makes.

`$GRIST_LAKE` stands for `--lake`. A test parses every line, and asks that no command is without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

EXAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "run": "grist run web --lake lake-data --set recipe.inputs='[demo/crawl/*]'",
        "kickoff": "grist kickoff everything --plan",
        "train": "grist train train-nano --lake lake-data --plan",
        "eval": "grist eval sft@v1 --on held-out@v1",
        "report": "grist report web@v1",
        "sample-data": "grist sample-data demo --pages 300",
        "ls": "grist ls web",
        "log": "grist log web",
        "show": "grist show web@v1",
        "stats": "grist stats web",
        "lineage": "grist lineage mix@v1 --json",
        "runs": "grist runs",
        "lr-fit": "grist lr-fit small@v1 small@v2 larger@v1 larger@v2 --tokens 1000000000",
        "why": "grist why https://example.org/page",
        "diff": "grist diff web@v1 web@v2",
        "replay": "grist replay web@v1 --set recipe.gopher_quality.min_words=80",
        "sample": "grist sample web@v1 -n 3 --fate dropped",
        "similar": "grist similar web page.txt",
        "audit": "grist audit judged.jsonl --show 5",
        "tag": "grist tag web@v1 released",
        "withdraw": "grist withdraw web@v1 --reason 'wrong source'",
        "forget": "grist forget --urls takedown.txt --reason 'request 2026-17'",
        "checkout": "grist checkout web@v1 files",
        "verify": "grist verify web@v1 --deep",
        "gc": "grist gc --grace 7d",
        "up": "grist up --cpus 2",
        "down": "grist down",
        "status": "grist status --json",
        "env": 'eval "$(grist env)"',
        "doctor": "grist doctor",
        "serve": "grist serve sft@v1 --port 8000 --request-log requests.jsonl",
        "ask": "grist ask sft@v1 'Which word comes next?'",
        "tokenizer train": "grist tokenizer train web@v1 --vocab-size 8192",
        "classifier train": "grist classifier train --positive articles@v1 --negative web@v1 --name quality",
        "classifier apply": "grist classifier apply quality@v1 web@v1 --out scores.parquet",
        "classifier eval": "grist classifier eval quality@v1 --labelled labelled.jsonl --json",
        "tokenizer add": "grist tokenizer add tokenizer.json",
        "import hf": "grist import hf checkpoint --name base",
        "export hf": "grist export hf sft@v1 checkpoint",
        "export dataset": "grist export dataset web@v1 web-v1 --as hf",
    }
)
"""Words of a command -> the line."""


def epilog(words: str, before: str | None) -> str | None:
    """What the help of a command ends with. `before`: what it would without an example."""
    if words not in EXAMPLES:
        return before
    # Typer reads markup here: a bracket of its own has to be said to be one.
    line = EXAMPLES[words].replace("[", r"\[")
    return "\n\n".join(filter(None, (f"Example: {line}", before)))
