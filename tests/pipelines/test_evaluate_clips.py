"""Evaluation on clips: records of each task and windows, row by row against the model asked by other means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluations
import mixtures
import pytest
import torch
from clip_mixtures import TAKEN
from models import NANO, enlivened, greedy
from speech import clip, parquet_of, run

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_object, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.evaluate.transcripts import Normalisation, transcript_reading
from gristmill.model.evaluate.translation import bleu_counts, chrf_counts
from gristmill.model.generate.engine import Request
from gristmill.model.hf.checkpoint import save_hf
from gristmill.model.processing.text import Tokenizer
from gristmill.model.windows.media import media_inputs
from gristmill.model.windows.placeholders import Medium
from gristmill.model.windows.prompts import Prompts, log_mel_of
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.model import ModelRunConfig
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.evaluate.compare import compare
from gristmill.stages.models.model_versions import load_model
from gristmill.stages.run.runner import Runner
from gristmill.stages.text.instruct import parts_of

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = [(1.0 + 0.3 * n, "en" if n % 3 else "zh") for n in range(6)]
LOOSE: dict[str, Any] = {"min_similarity": None, "speech_rate": None, "transcript": None}
BASE_TEXT = "The mill grinds grain number {}."


def clips(store: Store, folder: Path, name: str, task: str, **fields: str) -> Manifest:
    """A version of clips of a task; `fields` of each row, formatted with its number."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "audio": {"bytes": clip(n, "FLAC", seconds), "path": None},
            "language": language,
            "id": f"https://c.x/{name}/{n}",
        }
        | {key: value.format(n) for key, value in fields.items()}
        for n, (seconds, language) in enumerate(ROWS)
    ]
    address = parquet_of(folder / f"{name}.parquet", rows)
    return run(store, [address], dataset=name, audio={"task": task, "language": "en"}, **LOOSE)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """`asr`, `ast`, `cot`, `sqa` (clips), `web`, `bpe`, `mix` (windows of web and asr), `base` (a model)."""
    folder = tmp_path_factory.mktemp("clips")
    store = open_store(str(folder / "lake"))
    mixtures.documents(store, "web", mixtures.texts(20, longest=60))
    into = {"text": BASE_TEXT, "translation": "Die Mühle mahlt Korn {}.", "target_language": "de"}
    clips(store, folder / "in", "asr", "asr", text=BASE_TEXT)
    clips(store, folder / "in", "ast", "ast", **into)
    clips(store, folder / "in", "cot", "ast_cot", **into)
    clips(store, folder / "in", "sqa", "sqa", question="Which number?", answer="Number {}")
    mixtures.tokenizer(store, "web@v1", "asr@v1")
    mixtures.mix(store, {"web@v1": 1, "asr@v1": 1}, dataset="mix", window=512, audio=TAKEN, max_waste=0.9)
    evaluations.model(store, folder / "base", "base")
    return store


def rows_of(store: Store, manifest: Any) -> list[dict[str, Any]]:
    return read_table(store, manifest.shards[0]).to_pylist()


def records(store: Store, name: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in read_table(store, Versions(store).manifest(name, 1).shards[0]).to_pylist()}


def metrics(manifest: Manifest) -> dict[tuple[str, str], float]:
    return {(score["metric"], score.get("group", "")): score["value"] for score in manifest.statistics["scores"]}


def written(store: Store, record: dict[str, Any]) -> str:
    """What the model without a cache says to a record."""
    base = load_model(store, "base@v1")
    assert base.tokenizer is not None
    prompts = Prompts(base.tokenizer, log_mel=log_mel_of(base.model.config, base.tokenizer))
    parts = parts_of(record["text"], record["parts"])
    start = next(n for n, part in enumerate(parts, 1) if part.text == "<|assistant|>")
    prompt = prompts.of(parts[:start], [Medium("audio", item["data"]) for item in record["media"]])
    tokens, _ = greedy(base.model, Request("", prompt.tokens, media=prompt.media), 6)
    ends = [n for n, token in enumerate(tokens) if token in base.model.config.text.eos_token_id]
    return base.tokenizer.decode(tokens[: ends[0]] if ends else tokens)


def test_transcripts_are_those_of_the_model_without_a_cache_and_rates_are_by_language(lake: Store) -> None:
    manifest = evaluations.evaluate(lake, ["asr@v1"], dataset="heard").manifest
    rows, stored = rows_of(lake, manifest), records(lake, "asr")
    assert len(rows) == len(ROWS) and {(row["task"], row["kind"]) for row in rows} == {("transcript", "asr")}
    for row in rows[:3]:
        assert row["answer"] == written(lake, stored[row["id"]])
        near = transcript_reading(row["answer"], row["expected"], row["language"], Normalisation())
        assert (row["words"], row["word_errors"], row["chars"], row["char_errors"]) == near
    assert {row["language"] for row in rows} == {"en", "zh"}
    scores = metrics(manifest)
    english = [row for row in rows if row["language"] == "en"]
    assert scores["wer", ""] == sum(row["word_errors"] for row in english) / sum(row["words"] for row in english)
    for language in ("en", "zh"):
        own = [row for row in rows if row["language"] == language]
        rate = sum(row["char_errors"] for row in own) / sum(row["chars"] for row in own)
        assert scores["cer", f"language: {language}"] == rate
    assert ("wer", "language: zh") not in scores


@pytest.mark.parametrize("name", ["ast", "cot"])
def test_translations_have_counts_of_what_stands_behind_the_transcript(lake: Store, name: str) -> None:
    manifest = evaluations.evaluate(lake, [f"{name}@v1"], dataset=f"{name}said").manifest
    rows = rows_of(lake, manifest)
    assert {row["task"] for row in rows} == {"translation"}
    assert {row["language"] for row in rows} == {"de"}
    for row in rows:
        assert row["expected"].startswith("Die Mühle") and "<sep>" not in row["expected"]
        given = row["answer"].rpartition("<sep>")[2].strip()
        assert row["bleu"] == bleu_counts(given, row["expected"], row["language"])
        assert row["chrf"] == chrf_counts(given, row["expected"])
    assert {name for name, group in metrics(manifest) if not group} == {"bleu", "chrf"}


def test_tasks_of_records_are_scores_of_their_own(lake: Store) -> None:
    manifest = evaluations.evaluate(lake, ["sqa@v1", "asr@v1"], dataset="asked", tasks={"asr@v1": "answer"}).manifest
    rows = rows_of(lake, manifest)
    assert {(row["kind"], row["task"]) for row in rows} == {("sqa", "answer"), ("asr", "answer")}
    assert {group for metric, group in metrics(manifest) if metric == "exact"} >= {"", "kind: sqa", "kind: asr"}


def test_perplexity_of_windows_with_clips_is_that_of_a_plain_forward_of_each_record(lake: Store) -> None:
    manifest = evaluations.evaluate(lake, ["mix@v1"], dataset="windows", window=512, chunk_items=3).manifest
    base, stored, heard = load_model(lake, "base@v1"), records(lake, "asr"), 0
    assert base.tokenizer is not None
    prompts = Prompts(base.tokenizer, log_mel=log_mel_of(base.model.config, base.tokenizer))
    for row in rows_of(lake, manifest):
        if row["source"] != "asr@v1":
            continue
        record = stored[row["id"]]
        parts, media = (
            parts_of(record["text"], record["parts"]),
            [Medium("audio", item["data"]) for item in record["media"]],
        )
        encoded, arrays = prompts.encoded(parts, media), prompts.arrays(parts, media)
        ids = torch.tensor([encoded.ids.tolist()])
        with torch.inference_mode():
            logits = base.model(ids, **media_inputs([arrays], base.model.config, "cpu")).logits[0, :-1]
        every = -logits.log_softmax(-1).gather(1, ids[0, 1:, None].long())[:, 0].double()
        expected = float(every[torch.from_numpy(encoded.loss_mask[1:])].sum())
        assert row["nats"] == pytest.approx(expected, rel=1e-4) and row["tokens"] == encoded.loss_mask[1:].sum()
        heard += 1
    assert heard >= len(ROWS)


def test_clips_that_are_too_long_are_not_asked(lake: Store) -> None:
    manifest = evaluations.evaluate(lake, ["asr@v1"], dataset="brief", max_seconds=1.7).manifest
    assert manifest.kept.count == 3
    assert manifest.funnel[-1].dropped == {"evaluate.clip_too_long": 3}


def test_two_models_are_compared_by_rates_and_counts(lake: Store, tmp_path: Path) -> None:
    evaluations.model(lake, tmp_path / "other", "other", seed=1)
    pair = [
        evaluations.evaluate(lake, ["asr@v1", "ast@v1"], dataset="pair", model=f"{name}@v1").manifest
        for name in ("base", "other")
    ]
    by_metric = {(item.metric, item.group): item for item in compare(lake, *pair).differences}
    assert {("wer", ""), ("cer", "language: zh"), ("bleu", ""), ("chrf", "")} <= by_metric.keys()
    assert all(item.low <= item.after - item.before <= item.high for item in by_metric.values() if item.items > 1)


def refused(store: Store, folder: Path, name: str, **audio: Any) -> str:
    """Why a model with another audio part, or none, cannot be asked about `mix` and `asr`."""
    tokenizer = read_object(store, Versions(store).manifest("bpe", 1).shards[0])
    text = replace(NANO.text, vocab_size=Tokenizer.from_bytes(tokenizer).vocab_size)
    assert NANO.audio is not None
    part = replace(NANO.audio, **audio) if audio else None
    save_hf(enlivened(replace(NANO, text=text, audio=part), 0), folder / name, tokenizer=tokenizer)
    recipe = {"recipe": {"dataset": name, "folder": str(folder / name)}}
    run_pipeline(ModelRunConfig.model_validate(recipe), store, Runner(store, workers=0))
    with pytest.raises(BadConfig) as info:
        evaluations.evaluate(store, ["mix@v1", "asr@v1"], dataset="never", model=f"{name}@v1")
    return str(info.value)


def test_a_model_that_hears_otherwise_is_refused(lake: Store, tmp_path: Path) -> None:
    assert "were made with reduction=8, four@v1 takes 4" in refused(lake, tmp_path, "four", time_reduction=4)
    assert "puts clips at token 99" in refused(lake, tmp_path, "elsewhere", audio_token_id=99)


def test_a_deaf_model_is_refused(lake: Store) -> None:
    from gristmill.pipelines.frame.media import _KINDS, _taken

    assert _taken(replace(NANO, audio=None), _KINDS[1]) is None
