"""`make learn`, its seventh part: code against languages, the trade-off of a small model's mixture. Small language
models (`nano`) on as many tokens of three mixtures of real pages and programs, and the bits a byte that they need for
text of each language, and for code, from other sources:

- english: pages in English alone, by the recipe conf/web-languages.yaml of one language;
- languages: English, German, French and Spanish, equal shares of tokens;
- half code: the same in half as many tokens, and the other half code, by conf/web-code.yaml.

Held out are sentences and articles of the Declaration of Human Rights in each language, and the programs of HumanEval;
no document that shares 13 words in a row with one is trained on. It reports, and asks for nothing: the exit code is 0
whatever comes of it. Prints tables, writes all as JSON with `--out`. `--folder`: where everything is kept, and gone on
with.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from learn_web import crawls
from rich.console import Console
from rich.table import Table
from seeds import MACHINE
from text_lessons import AS_IT_IS, Bits, Size, TextLesson, begin, gain, stated

CONF = Path(__file__).parents[1] / "conf"
DECLARATION = {"en": "eng", "de": "deu", "fr": "fra", "es": "spa"}
"""Language -> as the Declaration of Human Rights is called in it (ISO 639-3)."""
LANGUAGES = tuple(DECLARATION)
CODE = "code"
BASE = "languages"
RECIPES: dict[str, dict[str, float]] = {
    "english": {"en": 1.0},
    BASE: dict.fromkeys(LANGUAGES, 0.25),
    "half code": {**dict.fromkeys(LANGUAGES, 0.125), CODE: 0.5},
}
"""Mixture -> its sources with their shares of tokens."""
TOKENIZER = "languages-bpe"
SIZE = Size(steps=48)


def held_out_texts(shared: Path) -> dict[str, list[str]]:
    """Language, or code -> texts from sources that nothing is trained on."""

    def lines(name: str) -> Iterator[dict[str, Any]]:
        return map(json.loads, (shared / name).read_text(encoding="utf-8").splitlines())

    texts: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    for row in lines("6_langid/lingua_sentences.jsonl"):
        texts.get(row["lang"], []).append(row["text"])
    for language, name in DECLARATION.items():
        texts[language] += [row["text"] for row in lines("6_langid/udhr.jsonl") if row["iso639_3"] == name]
    texts[CODE] = [row["prompt"] + row["canonical_solution"] for row in lines("3_math_code/humaneval.jsonl")]
    return texts


def programs(shared: Path) -> Iterator[str]:
    """To learn from: solutions of MBPP, and programs by which a model solved GSM8K."""
    for name, field in (("mbpp", "code"), ("tora_70b_gsm8k_outputs", "code")):
        for line in (shared / "3_math_code" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            written = json.loads(line)[field]
            yield written if isinstance(written, str) else "\n".join(written)


def given_texts(lesson: TextLesson, shared: Path) -> None:
    """A held-out version of each language and of code, sets to learn from, and a tokenizer of them all."""
    files = []
    for name, texts in held_out_texts(shared).items():
        files.append(lesson.written(held_out_of(name), ({"text": text} for text in texts)))
        lesson.run("web", {"dataset": held_out_of(name), "inputs": [str(files[-1])], **AS_IT_IS})
    apart = {"decontaminate": {"benchmarks": list(map(str, files)), "fields": ["text"]}}
    pages = {"inputs": crawls(shared), "unreadable_files": "quarantine", "max_quarantine_rate": 1.0}
    recipe = _recipe("web-languages")
    for language in LANGUAGES:
        kept = {"language": {**recipe["language"], "keep": [language]}}
        lesson.run("web", {**recipe, **pages, **apart, **kept, "dataset": language})
    code = lesson.written("programs", ({"text": text} for text in programs(shared)))
    lesson.run("web", {**_recipe("web-code"), **apart, "inputs": [str(code)], "dataset": CODE})
    lesson.tokenizer(TOKENIZER, [*LANGUAGES, CODE])


def _recipe(name: str) -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))["recipe"]
    return recipe


def held_out_of(name: str) -> str:
    """The dataset of what is held out of a language, or of code."""
    return f"held-out-{name}"


def learned(shared: Path, folder: Path, seeds: Sequence[int], size: Size) -> dict[str, Any]:
    """What there was, what each model needs for each language, and what the mixtures gain over BASE."""
    lesson = TextLesson(folder, size)
    given_texts(lesson, shared)
    held_out = [held_out_of(name) for name in (*LANGUAGES, CODE)]
    bits: dict[str, list[Bits]] = {recipe: [] for recipe in RECIPES}
    by_seed: dict[str, Any] = {}
    for seed in seeds:
        by_seed[str(seed)] = {}
        for recipe, weights in RECIPES.items():
            name = f"{recipe.replace(' ', '-')}-{seed}-windows"
            epochs = lesson.mixed(name, TOKENIZER, weights, seed)
            trained = {"epochs": epochs, **lesson.trained(name, TOKENIZER, held_out, seed)}
            needed = lesson.bits(name, held_out)
            bits[recipe].append(needed)
            trained["bits_per_byte"] = {of: round(needed.of(held_out_of(of)).per_byte, 4) for of in (*LANGUAGES, CODE)}
            by_seed[str(seed)][recipe] = trained
            print(f"seed {seed}: {recipe} {trained}", flush=True)
    return {
        "name": "languages_learning",
        "recipe": str(size),
        "machine": MACHINE,
        "sets": lesson.material(TOKENIZER, {name: name for name in (*LANGUAGES, CODE)}),
        "held_out": lesson.material(TOKENIZER, {name: held_out_of(name) for name in (*LANGUAGES, CODE)}),
        "seeds": by_seed,
        f"minus_{BASE}": {recipe: _gains(bits, recipe) for recipe in RECIPES if recipe != BASE},
    }


def _gains(bits: Mapping[str, Sequence[Bits]], recipe: str) -> dict[str, Any]:
    """By language, and for code."""
    gains = {}
    for name in (*LANGUAGES, CODE):
        after, before = ([each.of(held_out_of(name)) for each in bits[way]] for way in (recipe, BASE))
        gains[name] = gain(after, before).as_json()
    return gains


def show(results: dict[str, Any]) -> None:
    """The tables, and what they say."""
    console = Console(width=120)
    table = Table("seed", "mixture", "CPU s", *LANGUAGES, CODE, title=f"bits a byte: {results['recipe']}")
    for seed, result in results["seeds"].items():
        for recipe, trained in result.items():
            needed = (f"{value:.3f}" for value in trained["bits_per_byte"].values())
            table.add_row(seed, recipe, str(trained["cpu_s"]), *needed)
    console.print(table)
    for recipe, gains in results[f"minus_{BASE}"].items():
        for name, pooled in gains.items():
            console.print(f"{recipe} minus {BASE}, {name}: {stated(pooled)}, over documents and seeds")


if __name__ == "__main__":
    sys.exit(begin(sys.argv[1:], __doc__, learned, SIZE, show))
