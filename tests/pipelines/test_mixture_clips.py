"""Mixtures of records with clips beside text: what stands in windows, and what budgets do."""

from __future__ import annotations

import io
import shutil

import mixtures
import numpy as np
import pytest
import soundfile
from clip_mixtures import TAKEN, spoken
from mixtures import documents, mix, texts, tokenizer
from models import NANO

from gristmill.lake.store.objects import iter_batches, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.audio import audio_tokens, frames_of, log_mel
from gristmill.model.windows.media import media_inputs
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.tokenizer import tokenizer_of
from gristmill.stages.mix.windows import read_windows
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
