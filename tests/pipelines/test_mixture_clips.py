"""Mixtures of records with clips beside text: what stands in windows, and what budgets do."""

from __future__ import annotations

import io
import json
import shutil

import mixtures
import numpy as np
import pytest
import soundfile
import torch
from clip_mixtures import TAKEN, spoken
from image_mixtures import CUT, pictures
from mixtures import documents, mix, texts, tokenizer
from models import AUDIO, IMAGE, NANO, enlivened
from speech import clip, run
from typer.testing import CliRunner
from vision import picture, tar_of

from gristmill.lake.store.objects import iter_batches, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.audio import audio_tokens, frames_of, log_mel
from gristmill.model.windows.media import media_inputs
from gristmill.model.windows.placeholders import LogMel
from gristmill.model.windows.stretches import WindowMedia
from gristmill.orchestration.cli.main import app
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.tokenizer import tokenizer_of
from gristmill.pipelines.training.data import data_facts
from gristmill.stages.mix.media import TokenizeMedia
from gristmill.stages.mix.tokenize import tokenize_works
from gristmill.stages.mix.windows import read_windows
from gristmill.stages.models.model_versions import tokenizer_shard
from gristmill.stages.run.runner import Runner

LENGTHS = [(2.0, 16_000), (1.3, 8_000), (3.1, 44_100), (0.5, 16_000), (2.4, 22_050)] * 3
MIX = {"window": 256, "audio": TAKEN, "max_window_frames": 900, "max_waste": 0.1}


@pytest.fixture
def lake(store, tmp_path):
    """A store with documents, clips and a tokenizer."""
    documents(store, "web", texts(60, longest=120), shards=2)
    spoken(store, tmp_path / "in", LENGTHS)
    tokenizer(store, "web@v1", "speech@v1")
    return store


def mels_of(store, manifest, exact=True):
    """id -> log-Mel of the clips of a record, in the order of its placeholders."""
    rows = {}
    for ref in manifest.shards:
        for batch in iter_batches(store, ref, ["id", "media"]):
            for row in batch.to_pylist():
                clips = [medium["data"] for medium in row["media"] if medium["kind"] == "audio"]
                rows[row["id"]] = [log_mel(*soundfile.read(io.BytesIO(data)), exact=exact) for data in clips]
    return rows


@pytest.mark.parametrize("exact", [True, False])
def test_windows_hold_the_frames_that_their_audio_tokens_stand_for(lake, exact):
    manifest = mix(lake, {"web@v1": 1, "speech@v1": 1}, **{**MIX, "audio": {"exact": exact}}).manifest
    windows = mixtures.windows(lake, manifest)
    token = tokenizer_of(Versions(lake), manifest).special("<|audio|>")
    mels = mels_of(lake, Versions(lake).resolve("speech@v1"), exact)
    seen = set()
    for window in windows:
        bounds, ids, mel, ends = (window.arrays.get(n) for n in ("cu_seqlens", "input_ids", "mel", "cu_frames"))
        at, number = 0, 0
        for member, start, end in zip(window.meta["members"], bounds[:-1], bounds[1:], strict=True):
            own = mels.get(member["member"], []) if member["source"] == "speech@v1" else []
            assert (ids[start:end] == token).sum() == sum(audio_tokens(len(each)) for each in own)
            assert not window.arrays["loss_mask"][start:end][ids[start:end] == token].any()
            for each in own:
                assert np.array_equal(mel[at : at + len(each)], each)
                at, number = at + len(each), number + 1
                assert ends[number] == at
                seen.add(member["member"])
        assert ("mel" in window.arrays) == ("cu_frames" in window.arrays) == (number > 0)
        if number:
            assert mel.dtype == np.float32 and ends.dtype == np.int32 and len(mel) == ends[-1] == at
            assert at <= MIX["max_window_frames"]
    assert seen == set(mels)
    assert {"mel" in window.arrays for window in windows} == {True, False}
    reader = read_windows(lake, manifest)
    assert sum(reader.counts(n).frames for n in range(len(reader))) == manifest.statistics["frames"]
    assert manifest.schemas["window"].endswith("cu_seqlens: int32, mel: float32, cu_frames: int32")


def test_the_model_makes_as_many_embeddings_of_a_window_as_it_has_audio_tokens(lake):
    manifest = mix(lake, {"speech@v1": 1}, **MIX).manifest
    window = next(w for w in mixtures.windows(lake, manifest) if "mel" in w.arrays)
    inputs = media_inputs([window.arrays], NANO, "cpu")
    token = tokenizer_of(Versions(lake), manifest).special("<|audio|>")
    tokens = (-(-inputs["audio_frames"] // 8)).sum()
    assert int(tokens) == int((window.arrays["input_ids"] == token).sum())


def test_what_does_not_fit_is_dropped_with_the_reason_and_the_value(store, tmp_path):
    spoken(store, tmp_path / "in", [(2.0, 16_000), (9.0, 8_000), (30.0, 8_000), (4.0, 16_000), (0.02, 16_000)], clip=NO)
    tokenizer(store, "speech@v1")
    taken = {**TAKEN, "max_seconds": 20}
    given = {"window": 112, "max_waste": 0.9, "audio": taken, "max_window_frames": 300}
    manifest = mix(store, {"speech@v1": 1}, **given).manifest
    rows = [row for ref in manifest.fates for row in read_table(store, ref).to_pylist()]
    dropped = {row["reason"]: row["value"] for row in rows if row["fate"] == "dropped"}
    assert dropped["tokenize.clip_too_long"] == "30.000 seconds, allowed are 20"
    assert dropped["tokenize.clip_too_short"] == "320 samples at 16000 Hz: 25 ms are needed for a frame"
    assert int(dropped["mix.too_long"]) > 112 and frames_of(9 * 8_000, 8_000) > 300
    assert dropped["mix.too_many_frames"] == str(frames_of(4 * 16_000))
    assert len(rows) == 5 and manifest.statistics["clips"] == 4, "the first alone, four times"


def test_a_request_that_nobody_has_answered_is_in_no_window(lake, tmp_path):
    unlabelled = {"task": "unlabelled", "language": "en"}
    asked = spoken(lake, tmp_path / "asked", LENGTHS, dataset="asked", audio=unlabelled)
    with pytest.raises(BadConfig, match="asked@v1 has nothing that fits a window and is learned from"):
        mix(lake, {"web@v1": 1, "asked@v1": 1}, **MIX)
    shard = tokenizer_shard(Versions(lake).resolve("bpe@v1"))
    works = tokenize_works(asked, shard, TokenizeMedia(shard.sha256, log_mel=LogMel(**TAKEN)))
    (receipt,) = Runner(lake, workers=0).map("tokenize", works)
    assert dict(receipt.reasons) == {"tokenize.nothing_learned": len(LENGTHS)} and not receipt.passed.count


NO = {"min_seconds": 0.01, "min_peak": None, "max_silent_ratio": None}


def test_a_mixture_is_the_same_with_any_number_of_workers(lake, tmp_path):
    other = open_store(str(shutil.copytree(lake.uri, tmp_path / "other")))  # nothing of it is done there
    given = {**MIX, "shard_frames": 1000}
    here = mix(lake, {"web@v1": 1, "speech@v1": 1}, **given).manifest
    on_ray = mix(other, {"web@v1": 1, "speech@v1": 1}, Runner(other, workers=2), **given).manifest
    assert here.content_digest == on_ray.content_digest and len(here.shards) > 4


def test_log_mel_of_other_settings_is_a_mixture_of_its_own(lake):
    exact = mix(lake, {"speech@v1": 1}, **MIX).manifest
    fast = mix(lake, {"speech@v1": 1}, **{**MIX, "audio": {"exact": False}}).manifest
    assert exact.run_key != fast.run_key and exact.content_digest != fast.content_digest
    assert fast.recipe["audio"]["exact"] is False


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"audio": None, "max_window_frames": None}, r"recipe\.audio is null, and speech@v1 holds records with audio"),
        ({"audio": {"token": "<|sound|>"}}, r"recipe\.tokenizer: .*no special token '<\|sound\|>'"),
    ],
)
def test_what_the_recipe_lacks_is_said(lake, changes, says):
    with pytest.raises(BadConfig, match=says):
        mix(lake, {"speech@v1": 1}, **{**MIX, **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"audio": None}, "max_window_frames=900: for mixtures with audio; give audio, too"),
        ({"audio": {"reduction": 6}}, "reduction=6: allowed are powers of two from 2"),
        ({"audio": {"max_seconds": 20_000}}, "max_seconds=20000.*at most 14400"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        mixtures.recipe({"web@v1": 1}, **{**MIX, **changes})


@pytest.fixture
def of_all_kinds(store, tmp_path):
    """Windows of texts, pictures, clips, and questions that are spoken about pictures."""
    documents(store, "web", texts(12, longest=60))
    pictures(store, tmp_path / "pictures", [([(64, 64)], "It is {}."), ([(40, 100), (64, 64)], "Both are {}.")])
    spoken(store, tmp_path / "clips", LENGTHS[:5])
    records = {}
    for n in range(3):
        records[f"{n}.json"] = json.dumps({"question": "What is there?", "answer": f"Mill {n}."}).encode()
        records |= {f"{n}.wav": clip(n + 20), f"{n}.png": picture(n)}
    address = tar_of(tmp_path / "asked.tar", records)
    asked = {"dataset": "asked", "speech_rate": None, "audio": {"task": "sqqa", "max_images": 1}}
    run(store, [address], min_similarity=None, **asked)
    tokenizer(store, "web@v1", "speech@v1")
    sources = {"web@v1": 1, "pics@v1": 1, "speech@v1": 1, "asked@v1": 1}
    bounds = {"max_window_crops": 20, "max_window_frames": 2000}
    return mix(store, sources, window=512, images=CUT, audio=TAKEN, **bounds).manifest


def test_texts_images_and_clips_share_windows_and_each_sample_is_seen_as_if_it_were_alone(store, of_all_kinds):
    model = enlivened(NANO, 2)
    special = tokenizer_of(Versions(store), of_all_kinds).special
    assert (special("<|image|>"), special("<|audio|>")) == (IMAGE, AUDIO)
    kinds = {"web@v1": set(), "pics@v1": {"images"}, "speech@v1": {"clips"}, "asked@v1": {"images", "clips"}}
    seen, mixed = set(), 0
    for window in mixtures.windows(store, of_all_kinds):
        sources = [member["source"] for member in window.meta["members"]]
        seen |= set(sources)
        mixed += len(set(sources) - {"web@v1"}) > 1
        check_stretches(model, window, [kinds[source] for source in sources])
    assert seen == set(kinds) and mixed


def check_stretches(model, window, kinds):
    """Hidden states of a window's stretches, which have media of these kinds, are those of each alone."""
    media, bounds = WindowMedia.of(window), window.arrays["cu_seqlens"]
    row = torch.from_numpy(window.arrays["input_ids"].astype(np.int64))[None]
    segments = torch.from_numpy(np.repeat(np.arange(len(kinds)), np.diff(bounds)))[None]
    with torch.no_grad():
        packed = model.hidden(row, segment_ids=segments, **media_inputs([window.arrays], NANO, "cpu"))[0]
        for number, own_kinds in enumerate(kinds):
            first, end = bounds[number : number + 2]
            own = media.only(np.arange(len(kinds)) == number)
            assert own.lists.keys() == own_kinds
            alone = model.hidden(row[:, first:end], **media_inputs([own.arrays], NANO, "cpu"))[0]
            torch.testing.assert_close(packed[first:end], alone, atol=2e-4, rtol=1e-4)


def test_the_statistics_and_the_index_count_both(store, of_all_kinds):
    reader, statistics = read_windows(store, of_all_kinds), of_all_kinds.statistics
    counts = [reader.counts(number) for number in range(len(reader))]
    for unit, most in (("crops", 20), ("frames", 2000)):
        taken = [getattr(count, unit) for count in counts]
        assert sum(taken) == statistics[unit] > 0 and max(taken) <= most == statistics[f"window_{unit}"]


def test_a_stage_of_training_is_told_how_clips_were_taken(store, of_all_kinds):
    tokens = tokenizer_shard(Versions(store).resolve("bpe"))
    facts = data_facts(Versions(store), of_all_kinds, tokens, None, "data")
    assert (facts.mels, facts.reduction, facts.audio_token, facts.image_token) == (80, 8, AUDIO, IMAGE)
    assert facts.arrays[-4:] == ("tiles", "image_sizes", "mel", "cu_frames")


def test_a_record_with_images_in_a_mixture_that_takes_clips_alone_is_refused(store, of_all_kinds):
    with pytest.raises(BadConfig, match=r"recipe\.images, recipe\.audio: a record has media of kind image"):
        mix(store, {"asked@v1": 1}, window=512, audio=TAKEN)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, meta: arrays.update(cu_frames=arrays["cu_frames"][:-1]),
        lambda arrays, meta: arrays.update(mel=arrays["mel"][1:]),
        lambda arrays, meta: meta["clips"][0].update(frames=meta["clips"][0]["frames"] + 1),
        lambda arrays, meta: meta["clips"][0].update(stretch=99),
        lambda arrays, meta: meta.pop("clips"),
    ],
)
def test_a_window_whose_metadata_is_of_other_clips_is_not_taken_apart(lake, change):
    manifest = mix(lake, {"speech@v1": 1}, **MIX).manifest
    window = next(each for each in mixtures.windows(lake, manifest) if len(each.meta["clips"]) > 1)
    WindowMedia.of(window)
    change(window.arrays, window.meta)
    with pytest.raises(ValueError, match="clips"):
        WindowMedia.of(window)


def test_a_window_is_shown_with_a_line_a_clip(lake, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    mix(lake, {"speech@v1": 1}, **MIX)
    answer = CliRunner().invoke(app, ["sample", "mix@v1", "--lake", lake.uri, "-n", "40"])
    assert answer.exit_code == 0, answer.output
    assert "clip 1: 1.30 seconds at 8,000 Hz, 128 frames, 16 tokens, sha256" in answer.output
    assert "<|audio|><|audio|>" not in answer.output
    shown = CliRunner().invoke(app, ["show", "mix@v1", "--lake", lake.uri])
    assert "frames of log-Mel" in shown.output and "of 900 a window" in shown.output, shown.output
