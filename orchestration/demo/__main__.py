"""`make demo`: the main job end to end, as a user would type it, on data it writes itself.

A crawl of a few thousand generated pages goes in; an accounted, versioned dataset comes out, and an increment adds
to it. Then the promises: the same command again does nothing, a run killed with SIGKILL is finished by the same
command and ends with the digest of one that was never killed, every record can be asked why, a text can be looked up,
what somebody wants forgotten goes, every byte is checked. Small models learn, and answer what they have not met: one
word problems, and better so once it has learned from its own chains, the other what generated pictures show and
generated voices say.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from gristmill import place
from gristmill.orchestration.demo.hearing import LEFT_OUT, ROWS, hearing, speaks
from gristmill.orchestration.demo.reasoning import reasoning
from gristmill.orchestration.demo.seeing import seeing
from gristmill.orchestration.demo.terminal import FOLDER, check, command, console, grist, keys, killed, result, say
from gristmill.orchestration.demo.training import training

MARKER = FOLDER / ".gristmill-demo"


def main() -> int:
    """Runs the demo in ./demo, which it empties first. Raises SystemExit where a promise does not hold."""
    started = time.monotonic()
    prepare()
    lake, other, data = str(FOLDER / "lake"), str(FOLDER / "never-killed"), FOLDER / "data"
    say("A generated crawl: pages, spam, copies, errors, damage; a second crawl; the truth about each record.")
    with_speech = speaks()
    grist("sample-data", str(data), "--scenes", "5000", *(("--speech", ROWS) if with_speech else ()))
    crawls(lake, other, data)
    mixture(lake, data / "instruct")
    training(lake, data / "nano")
    reasoning(lake, data / "nano")
    seeing(lake, data / "scenes", data / "speech" / "hearing.jsonl" if with_speech else None)
    if with_speech:
        hearing(lake, data / "speech")
    else:
        say(LEFT_OUT)
    take_down(other)
    say("Is every byte of every version what it was, and every record accounted for?")
    grist("verify", "--deep", "--lake", lake)
    grist("ls", "--lake", lake)
    console.print(f"\n[bold]Done in {time.monotonic() - started:.0f} s.[/] The lake is {lake}; look around with")
    console.print(f"  .venv/bin/grist sample web --fate dropped --lake {lake}")
    return 0


def crawls(lake: str, other: str, data: Path) -> None:
    """A dataset of pages, then an increment that is killed and goes on; both again in another lake, never killed."""
    grow = ["run", "conf/web.yaml", "--set", "recipe.extends=web", "--set"]
    first = [*grow, f"recipe.inputs=[{data}/crawl/*]"]
    second = [*grow, f"recipe.inputs=[{data}/crawl/*, {data}/night2/*]"]
    say("The first run: language, quality, exact and near duplicates, shards, ledger, version.")
    first_run = result(grist(*first, "--lake", lake))
    grist("show", "web", "--lake", lake)

    say("The same command again: nothing is new, so nothing runs.")
    again = result(grist(*first, "--lake", lake))
    check(not again["new"] and again["digest"] == first_run["digest"], "no new version")

    say("An increment, killed with SIGKILL in the middle. Only new files are read; what is done has receipts.")
    before = receipts(lake)
    killed(*second, "--lake", lake, when=lambda: receipts(lake) >= before + 3, note="after the first receipts")
    say("The same command finishes it, on the version that it began with.")
    two = result(grist(*second, "--lake", lake))
    say("Both runs in an empty lake, never killed:")
    grist(*first, "--lake", other)
    whole = result(grist(*second, "--lake", other))
    check(two["digest"] == whole["digest"], "killed and finished, or never killed: the same content digest")

    say("What became of one page, and why?")
    url, text = page(lake, "--reason", "minhash.duplicate")
    grist("why", url, "--lake", lake)
    say("Which documents are like this text?")
    (FOLDER / "page.txt").write_text(text)
    grist("similar", "web", str(FOLDER / "page.txt"), "--lake", lake)
    say("What did the increment bring?")
    grist("diff", "web@v1", "web@v2", "--lake", lake)


FORMS = {"math": "pair", "code": "code", "chat": "chat", "tools": "chat", "refusals": "chat"}
"""Instruction data: dataset -> what a line of it is."""
SHARES = {"web@v2": 0.5, "math@v1": 0.2, "code@v1": 0.15, "chat@v1": 0.08, "tools@v1": 0.05, "refusals@v1": 0.02}


def mixture(lake: str, folder: Path) -> None:
    """What a trainer eats: pages and samples by weights of tokens, packed into windows."""
    say("Word problems, code, conversations, tool calls and refusals become datasets of samples.")
    here = ["--set", "run.workers=0", "--lake", lake]  # little data: no Ray needed
    for name, form in FORMS.items():
        settings = (f"dataset={name}", f"inputs=[{folder}/{name}.jsonl]", f"instruct.form={form}")
        grist("run", "conf/instruct.yaml", *keys(settings), *here)
    grist("sample", "tools", "-n", "1", "--full", "--lake", lake)
    say("What was no sample, and why?")
    grist("show", "tools", "--lake", lake)
    say("A tokenizer of these texts, a version like any other.")
    grist("tokenizer", "train", "web@v2", "math@v1", "code@v1", "--vocab-size", "4096", "--name", "bpe", "--lake", lake)
    say("Mixed by weights of tokens, and packed into windows of 1,024: planned against drawn, and what stays empty.")
    sources = ", ".join(f"{name}: {share}" for name, share in SHARES.items())
    settings = ("tokenizer=bpe@v1", f"sources={{{sources}}}", "window=1024")
    mixed = keys(settings)
    first_run = result(grist("run", "conf/mixture.yaml", *mixed, *here))
    grist("show", "mix", "--lake", lake)
    say("What a model sees of each: what it learns stands between « and ».")
    grist("sample", "mix", "-n", "3", "--lake", lake)
    again = result(grist("run", "conf/mixture.yaml", *mixed, *here))
    check(not again["new"] and again["digest"] == first_run["digest"], "the same mixture again: nothing to do")


def take_down(lake: str) -> None:
    """Of the lake in which no run was killed: gc spares for minutes what a killed one might still be writing."""
    say("Somebody asks to be forgotten: this page, and all others of its site.")
    url, _ = page(lake, "--fate", "kept")
    grist("why", url, "--lake", lake)
    say("A version without them, the old ones withdrawn, then erased.")
    (FOLDER / "takedown.txt").write_text(f"{urlsplit(url).hostname}\n")
    forget = ["forget", "--domains", str(FOLDER / "takedown.txt"), "--reason", "request 2026-17"]
    grist(*forget, "--yes", "--lake", lake)
    grist("gc", "--grace", "0s", "--yes", "--lake", lake)
    grist("why", url, "--lake", lake)
    grist("verify", "--deep", "--lake", lake)


def prepare() -> None:
    """An empty demo folder in the project's root. Only a folder that an earlier demo made is removed."""
    os.chdir(place.ROOT)
    if FOLDER.exists() and not MARKER.exists():
        sys.exit(f"error: {FOLDER.resolve()} is there and was not made by the demo: move it away, then run again")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    MARKER.touch()


def receipts(lake: str) -> int:
    """How many receipts a lake holds."""
    return sum(1 for _ in Path(lake, "receipts").rglob("*.json"))


def page(lake: str, *which: str) -> tuple[str, str]:
    """The address and text of a page with this fate."""
    sample = command("sample", "web", *which, "-n", "1", "--json", "--lake", lake)
    output = subprocess.run(sample, stdout=subprocess.PIPE, text=True, check=True).stdout
    record = json.loads(output)["samples"][0]
    return str(record["fields"]["url"]), str(record["text"])


if __name__ == "__main__":
    sys.exit(main())
