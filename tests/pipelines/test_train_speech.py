"""The stages of speech on a mixture of clips: what each trains, starts from and leaves as it was; what is refused."""

from __future__ import annotations

import shutil

import hf
import numpy as np
import pytest
import torch
from clip_mixtures import TAKEN, spoken
from image_mixtures import CUT, pictures
from mixtures import documents, mix, texts
from models import AUDIO, NANO, enlivened, save_nano, small_tokenizer
from pydantic import ValidationError
from safetensors.torch import load
from speech import waveform
from training import config, stage, stop_at, train
from transformers import AutoModelForCausalLM
from transformers.models.phi4_multimodal import Phi4MultimodalFeatureExtractor
from typer.testing import CliRunner

from gristmill.lake.store.objects import read_object
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.hf.checkpoint import save_hf
from gristmill.model.phi4.parts import Part
from gristmill.model.processing.audio import audio_tokens, log_mel
from gristmill.orchestration.cli.main import app
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.model import ModelRunConfig
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.tokenizer import TokenizerConfig
from gristmill.stages.mix.windows import read_windows
from gristmill.stages.models.model_versions import load_model, part_shards
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete
from gristmill.stages.train.folder import runs

LENGTHS = [(1.2, 16_000), (0.8, 8_000), (0.9, 22_050)] * 6
VISION = ("vision_encoder", "vision_projector", "lora_vision")
HIDING = {"time_masks": 2, "time_width": 20, "band_masks": 1, "band_width": 20}


@pytest.fixture
def base(store, tmp_path):
    """A model that was taken in, its tokenizer, `clips@v1` of clips and text, and `both@v1` of images too."""
    folder = save_nano(tmp_path / "checkpoint")
    taken_in = {"recipe": {"dataset": "base", "folder": str(folder)}}
    model = run_pipeline(ModelRunConfig.model_validate(taken_in), store, Runner(store, workers=0)).manifest
    added = {"recipe": {"dataset": "bpe", "file": str(folder / "tokenizer.json")}}
    run_pipeline(TokenizerConfig.model_validate(added), store, Runner(store, workers=0))
    documents(store, "web", texts(10, longest=60))
    spoken(store, tmp_path / "clips", LENGTHS)
    pictures(store, tmp_path / "pictures", [([(64, 64)], "It is {}.") for _ in range(6)])
    heard = {"window": 128, "max_waste": 0.3, "audio": TAKEN}
    mix(store, {"web@v1": 1, "speech@v1": 2}, dataset="clips", **heard)
    mix(store, {"web@v1": 1, "speech@v1": 1, "pics@v1": 1}, dataset="both", images=CUT, **heard)
    return model


def a1(**changes):
    """A new encoder and its projector, upon a language model that stays."""
    fields = {
        "init_from": {"language": "base@v1"},
        "trainable": ["audio_encoder", "audio_projector_speech"],
        "data": "clips@v1",
        "gates": ["frozen_parts", "trained_parts", "text"],
    }
    return stage("a1", **{**fields, **changes})


def a2():
    """The adapter, and the projector further, with what sees beside them."""
    heard = dict.fromkeys(("audio_encoder", "audio_projector_speech"), "stage:a1")
    return stage(
        "a2",
        init_from={"language": "base@v1", **dict.fromkeys(VISION, "base@v1"), **heard},
        trainable=["audio_projector_speech", "lora_speech"],
        data="clips@v1",
        gates=["frozen_parts", "trained_parts", "text", "vision", "speech"],
    )


def vs():
    """What sees, beside what hears, which stays."""
    heard = dict.fromkeys(("audio_encoder", "audio_projector_speech", "lora_speech"), "stage:a2")
    return stage(
        "vs",
        init_from={
            "language": "base@v1",
            **dict.fromkeys(VISION, "base@v1"),
            **heard,
            "audio_projector_vision": "stage:a2/audio_projector_speech",
        },
        trainable=list(VISION),
        data="both@v1",
        gates=["frozen_parts", "trained_parts", "text", "vision", "speech"],
    )


def trained(store, *stages, **more):
    """A run of these stages."""
    return train(store, *stages, model="base@v1", tokenizer="", **more).manifest


def tensors(store, manifest, part):
    """Of a part, by name."""
    return {name: each for ref in part_shards(manifest)[part] for name, each in load(read_object(store, ref)).items()}


def test_each_stage_trains_its_own_parts_and_what_it_does_not_train_works_as_before(store, base):
    runner = Runner(store, workers=0)
    joint = trained(store, a1(), a2(), vs(), runner=runner)
    versions = Versions(store)
    first, second = (versions.resolve(f"nano.{name}@v1") for name in ("a1", "a2"))
    taken, heard, spoke, both = map(part_shards, (base, first, second, joint))
    assert {part for part in heard if heard[part] != taken[part]} == {
        Part.AUDIO_ENCODER,
        Part.AUDIO_PROJECTOR_SPEECH,
        Part.AUDIO_PROJECTOR_VISION,  # nothing reaches it yet: it is as its seed made it
    }
    assert spoke[Part.AUDIO_ENCODER] == heard[Part.AUDIO_ENCODER]
    assert spoke[Part.AUDIO_PROJECTOR_SPEECH] != heard[Part.AUDIO_PROJECTOR_SPEECH]
    assert {part for part in both if both[part] != spoke[part]} == {*map(Part, VISION), Part.AUDIO_PROJECTOR_VISION}
    of_clips, of_images = (
        tensors(store, joint, part) for part in (Part.AUDIO_PROJECTOR_SPEECH, Part.AUDIO_PROJECTOR_VISION)
    )
    assert len(of_clips) == 4
    for name, tensor in of_clips.items():
        assert tensor.equal(of_images[name.replace("projector_speech", "projector_vision")])
    gates = [
        {name: gate["passed"] for name, gate in manifest.statistics["gates"].items()} for manifest in (second, joint)
    ]
    assert gates[0] == {"frozen_parts": True, "trained_parts": True, "text": True, "vision": True, "speech": None}
    assert gates[1] == {"frozen_parts": True, "trained_parts": True, "text": True, "vision": None, "speech": True}
    assert "images in 6 places is bit for bit what the base makes" in second.statistics["gates"]["vision"]["why"]
    assert "trains lora_vision" in joint.statistics["gates"]["vision"]["why"]
    assert {part.name for part in joint.stages} >= {"copy_part", "train", "gate_speech"}
    assert ("start", 0, 1) in runner.history
    assert not train(store, a1(), a2(), vs(), model="base@v1", tokenizer="").new


def test_a_new_encoder_has_the_scale_of_the_clips_that_it_is_first_trained_on(store, base):
    manifest = trained(store, a1())
    reader = read_windows(store, Versions(store).resolve("clips@v1"))
    clips = [reader.sample(number).arrays.get("mel") for number in range(len(reader))]
    mel = np.concatenate([each for each in clips if each is not None]).astype(np.float64)
    assert len(mel) > 1000
    buffers = tensors(store, manifest, Part.AUDIO_ENCODER)
    mean = buffers["audio_encoder.encoder_embedding.global_mean"].numpy()
    invstd = buffers["audio_encoder.encoder_embedding.global_invstd"].numpy()
    assert np.allclose(mean, mel.mean(0), atol=1e-4) and mean.min() > 0.5
    assert np.allclose(invstd, 1 / np.maximum(mel.std(0), 1.0), atol=1e-4)
    assert "measure_sound" in {part.name for part in manifest.stages}
    later = trained(store, a1(), a2())
    assert tensors(store, later, Part.AUDIO_ENCODER).keys() == buffers.keys(), "one that is taken keeps its own"


def test_a_mixture_without_a_clip_has_none_to_measure_or_to_hide(store, base):
    mix(store, {"web@v1": 1}, dataset="deaf", window=128, max_waste=0.3, audio=TAKEN)
    assert Versions(store).resolve("deaf@v1").statistics["clips"] == 0
    with pytest.raises(BadConfig, match=r"audio_encoder, .* would get no gradient from data=deaf@v1"):
        trained(store, a1(data="deaf@v1", gates=["frozen_parts"]))
    with pytest.raises(BadConfig, match="spec_augment: the windows of data=deaf@v1 have no clips"):
        trained(store, a1(data="deaf@v1", spec_augment=HIDING))


def test_what_is_hidden_of_clips_is_hidden_again_where_a_run_goes_on(store, base, tmp_path, monkeypatch):
    other = open_store(shutil.copytree(store.uri, tmp_path / "other").as_posix())
    hidden = a1(spec_augment=HIDING, steps=8, gates=["frozen_parts"])
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(Incomplete, match="the disk is gone"):
            trained(store, hidden)
    (about,) = runs(store)
    recipe = config(hidden, model="base@v1", tokenizer="").recipe
    assert recipe.link([]).looked_up(Versions(store)).reached(store, about.dataset) == 5, "the scale is measured, too"
    resumed, unbroken = trained(store, hidden), trained(other, hidden)
    assert [ref.sha256 for ref in resumed.shards] == [ref.sha256 for ref in unbroken.shards]
    assert resumed.recipe["stage"]["spec_augment"]["time_width"] == 20
    plain = trained(other, a1(steps=8, gates=["frozen_parts"]))
    assert "spec_augment" not in plain.recipe["stage"], "a stage without it is the stage that it was"
    assert plain.statistics["training"]["final_loss"] != unbroken.statistics["training"]["final_loss"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"init_from": {"audio_projector_vision": "base@v1/lora_vision"}}, "allowed are copies of one of audio_projec"),
        ({"init_from": {"audio_projector_speech": "base@v1/speech"}}, "'speech', which is no part"),
        ({"spec_augment": {"time_share": 0}}, "spec_augment.time_share=0.0: allowed is above 0 and up to 1"),
        ({"spec_augment": {"band_masks": -1}}, "spec_augment.band_masks=-1: allowed is 0 or more"),
    ],
)
def test_what_no_stage_can_be_is_refused_when_the_config_is_read(store, base, changes, says):
    with pytest.raises(ValidationError, match=says):
        trained(store, a1(**changes))


def test_what_the_mixture_lacks_is_said_before_anything_runs(store, base):
    mix(store, {"web@v1": 1}, window=128, dataset="text")
    with pytest.raises(BadConfig, match="spec_augment: the windows of data=text@v1 have no clips"):
        trained(store, a1(data="text@v1", spec_augment=HIDING))
    joint = vs()
    del joint["init_from"]["audio_projector_vision"]
    joint["init_from"] |= dict.fromkeys(("audio_encoder", "audio_projector_speech", "lora_speech"), "base@v1")
    with pytest.raises(BadConfig, match=r"init_from\.audio_projector_vision is missing"):
        trained(store, joint)


def test_what_a2_made_transcribes_alike_in_transformers_with_peft(store, base, tmp_path):
    """Clips go in as their waveforms, through the reference's own extractor."""
    save_hf(enlivened(NANO, 0), tmp_path / "lively", tokenizer=small_tokenizer())
    taken_in = {"recipe": {"dataset": "lively", "folder": str(tmp_path / "lively")}}
    run_pipeline(ModelRunConfig.model_validate(taken_in), store, Runner(store, workers=0))
    heard = dict.fromkeys(map(str, set(Part) - {Part.LORA_SPEECH}), "lively@v1")
    spec = stage("a2", init_from=heard, trainable=["audio_projector_speech", "lora_speech"], data="clips@v1", steps=6)
    train(store, spec, model="lively@v1", tokenizer="")
    exported = CliRunner().invoke(app, ["export", "hf", "nano.a2@v1", str(tmp_path / "out"), "--lake", store.uri])
    assert exported.exit_code == 0, exported.output
    loaded = load_model(store, "nano.a2@v1")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation=hf.ATTENTION).eval()
    reference.load_adapter(str(tmp_path / "out" / "speech-lora"), adapter_name="speech")
    transcripts, without = [], 0
    for number, (seconds, rate) in enumerate([(1.0, 16_000), (0.7, 16_000), (1.6, 16_000)]):
        sound = waveform(100 + number, seconds, rate)
        mel = log_mel(sound, rate)
        features = Phi4MultimodalFeatureExtractor()(sound, sampling_rate=rate, return_tensors="pt")
        tokens = [7, *[AUDIO] * audio_tokens(len(mel)), 3, 5]  # as <|user|> and its end, with ids of the tokenizer
        given = {
            "audio_input_features": features["audio_input_features"],
            "audio_embed_sizes": features["audio_embed_sizes"],
        }
        media = {"mel": mel, "cu_frames": np.array([0, len(mel)], np.int32)}
        asked = Request(str(number), tuple(tokens), Sampling(max_tokens=8, temperature=0, ignore_eos=True), media=media)
        engine = Engine(
            loaded.model, Options(max_num_seqs=4, max_num_partial_prefills=4, max_model_len=128, block_size=32)
        )
        (answer,) = engine.run([asked])
        reference.set_adapter("speech")
        assert list(answer.tokens) == greedy(reference, tokens, given, 8)
        transcripts.append(tuple(answer.tokens))
        reference.disable_adapters()
        without += greedy(reference, tokens, given, 8) != list(answer.tokens)
        reference.enable_adapters()
    assert without and len(set(transcripts)) > 1, "neither the adapter nor the clip is beside the point"


@torch.no_grad()
def greedy(model, tokens, given, count):
    """The most likely tokens, each from the whole of what stands before it, as use_cache=False has it."""
    ids = list(tokens)
    for _ in range(count):
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False, **given).logits[0, -1].argmax()))
    return ids[len(tokens) :]
