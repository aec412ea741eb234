"""The classifier pipeline: a model as a version, from versions and files, and as a filter of other pipelines."""

from __future__ import annotations

import json

import classifiers
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import web

from gristmill.filters.classify.learn import FastText
from gristmill.filters.classify.model import parsed
from gristmill.filters.classify.windows import Windows
from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.objects import read_object, read_refs, read_table
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.ask import committed
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.instruct import InstructConfig
from gristmill.pipelines.replay.replay import replay
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.training.classifier import ClassifierConfig
from gristmill.stages.classify.texts import ReadTexts, TextOrigin, texts_works
from gristmill.stages.run.runner import Runner

QUICK = {"fast_text": {"epochs": 5, "min_count": 1}, "hold_out": 0.2}
# Whatever crawls are like, these texts pass.
EASY = {
    "language": {"keep": [], "min_score": None},
    "gopher_quality": None,
    "minhash": None,
    "max_quarantine_rate": 0.0,
}


def train(store, positives, negatives, **recipe):
    """The version of a classifier."""
    sides = {"positives": [str(name) for name in positives], "negatives": [str(name) for name in negatives]}
    config = ClassifierConfig.model_validate({"recipe": {"dataset": "quality", **sides, "train": QUICK, **recipe}})
    return run_pipeline(config, store, Runner(store, workers=0))


@pytest.fixture
def files(tmp_path):
    """Positives and negatives, 60 texts each."""
    return [
        classifiers.lines_file(tmp_path / f"{label}.jsonl", classifiers.texts(label, 60))
        for label in ("positive", "negative")
    ]


def reasons(store, manifest):
    """Text of every kept record, and how many were dropped for what."""
    ledger = Dataset(store, manifest).ledger().to_pylist()
    return sorted(row["reason"] for row in ledger if row["fate"] == "dropped")


def test_a_model_is_a_version_that_tells_the_two_apart(store, files):
    result = train(store, files[:1], files[1:])
    manifest = result.manifest
    assert (str(manifest), manifest.form, manifest.kept.count) == ("quality@v1", "classifier", 0)
    facts = manifest.statistics["classifier"]
    held = facts["held"]
    assert facts["positives"] + held["positives"] == facts["negatives"] + held["negatives"] == 60
    assert held["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert {file.names[0] for file in manifest.inputs} == {str(path) for path in files}
    model = parsed(read_object(store, manifest.shards[0]))
    good, bad = (Windows().lines(classifiers.texts(label, 1, seed=5)[0]) for label in ("positive", "negative"))
    assert model.scores(good, "positive").min() > 0.9 > 0.1 > model.scores(bad, "positive").max()
    assert not verify(store, ["quality@v1"], deep=True)


def test_the_same_texts_are_the_same_bytes_whatever_their_files_are_called(store, files, tmp_path):
    first = train(store, files[:1], files[1:])
    assert not train(store, files[:1], files[1:]).new
    moved = [path.rename(tmp_path / f"moved-{path.name}") for path in files]
    assert not train(store, moved[:1], moved[1:]).new
    # The same texts in other files, and as Parquet, are another run, and the same model.
    texts = [json.loads(line)["text"] for line in moved[0].read_text().splitlines()]
    parts = [tmp_path / "a.jsonl", tmp_path / "b.parquet"]
    classifiers.lines_file(parts[0], texts[:13])
    pq.write_table(pa.table({"text": texts[13:]}), parts[1])
    other = train(store, [parts[1], parts[0]], moved[1:])
    assert other.new and other.manifest.run_key != first.manifest.run_key
    assert other.manifest.shards == first.manifest.shards
    assert train(store, moved[1:], moved[:1]).manifest.shards != first.manifest.shards


def test_what_is_held_out_is_never_trained_on(store, files, tmp_path):
    positives = [json.loads(line)["text"] for line in files[0].read_text().splitlines()]
    quoted = f"Somebody wrote: {' '.join(positives[7].split()[:13])}, and went."
    held_out = classifiers.lines_file(tmp_path / "labelled.jsonl", [positives[3], quoted])
    facts = train(store, files[:1], files[1:], held_out=[str(held_out)]).manifest.statistics["classifier"]
    assert facts["left_out"]["held_out"] == 2
    assert facts["positives"] + facts["held"]["positives"] == 58
    twelve = classifiers.lines_file(tmp_path / "twelve.jsonl", [" ".join(positives[7].split()[:12])])
    facts = train(store, files[:1], files[1:], held_out=[str(twelve)]).manifest.statistics["classifier"]
    assert "held_out" not in facts["left_out"]


def test_what_both_sides_have_is_trained_on_by_neither(store, files, tmp_path):
    shared = classifiers.texts("positive", 4)
    negatives = classifiers.lines_file(tmp_path / "n.jsonl", [*classifiers.texts("negative", 60), *shared, *shared])
    facts = train(store, files[:1], [negatives]).manifest.statistics["classifier"]
    assert facts["left_out"]["of_both_sides"] == 4
    assert facts["positives"] + facts["held"]["positives"] == 56


def test_no_more_documents_are_trained_on_than_the_most(store, files):
    facts = train(store, files[:1], files[1:], train={**QUICK, "most": 40}).manifest.statistics["classifier"]
    assert facts["positives"] + facts["held"]["positives"] == 40
    limited = train(store, files[:1], files[1:], limit=40).manifest
    assert limited.dataset == "quality.limit"
    counts = limited.statistics["classifier"]
    assert counts["negatives"] + counts["held"]["negatives"] == 40


def test_a_version_is_read_by_its_documents(store, files, tmp_path):
    documents = web.run(store.uri, files[:1], **EASY).manifest
    manifest = train(store, [documents], files[1:]).manifest
    assert [(str(ref), ref.role) for ref in manifest.sources] == [("web@v1", "trained_on")]
    assert manifest.shards == train(store, files[:1], files[1:]).manifest.shards


@pytest.mark.parametrize(
    ("recipe", "error"),
    [
        ({"positives": []}, r"recipe\.positives is empty"),
        ({"negatives": ["nowhere-*.jsonl"]}, r"recipe\.negatives: .*nowhere"),
        ({"positives": ["web"]}, r"recipe\.positives: "),
        ({"positives": ["web@v9"]}, r"recipe\.positives: .*web"),
    ],
)
def test_texts_that_are_not_there(store, files, recipe, error):
    sides = {"positives": [str(files[0])], "negatives": [str(files[1])]}
    config = ClassifierConfig.model_validate({"recipe": {"dataset": "quality", **sides, **recipe}})
    with pytest.raises(BadConfig, match=error):
        run_pipeline(config, store, Runner(store, workers=0))


def test_a_file_on_two_sides_is_refused(store, files):
    with pytest.raises(BadConfig, match=r"recipe\.held_out: .*is among recipe\.positives too"):
        train(store, files[:1], files[1:], held_out=[str(files[0])])


def test_too_few_texts_are_no_classifier(store, files, tmp_path):
    few = classifiers.lines_file(tmp_path / "few.jsonl", classifiers.texts("negative", 12))
    with pytest.raises(GateFailed, match=r"positive and \d+ negative documents to train on; at least 20"):
        train(store, files[:1], [few])


def test_a_file_that_changes_after_the_look_up_is_noticed(store, files):
    origin = TextOrigin("0" * 64, uri=str(files[0]), label="moved")
    (work,) = texts_works(ReadTexts(), [origin], None)
    with pytest.raises(ValueError, match="it changed"):
        work.stage.run(store, work)


def test_rows_without_a_text_are_counted(store, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a b c"}\n{"text": " "}\n{"other": 1}\nno json\n{"text": "a b c"}\n')
    from hashlib import sha256

    origin = TextOrigin(sha256(path.read_bytes()).hexdigest(), uri=str(path))
    (work,) = texts_works(ReadTexts(), [origin], None)
    outcome = work.stage.run(store, work)
    assert (outcome.facts.read, outcome.facts.unreadable) == (2, 3)
    assert read_table(store, outcome.outputs[0])["lines"].to_pylist() == [["a b c"]]


def test_the_web_pipeline_judges_by_a_version(store, files):
    model = train(store, files[:1], files[1:]).manifest
    judged = web.run(store.uri, list(files), **EASY, quality={"model": "quality@v1", "min_score": 0.5}).manifest
    assert web.summary(judged) == (120, 60, 60, 0)
    assert reasons(store, judged) == ["quality.below"] * 60
    assert [(str(ref), ref.role) for ref in judged.sources] == [("quality@v1", "classifier")]
    assert judged.recipe["quality"]["sha256"] == model.shards[0].sha256
    assert "model" not in judged.recipe["quality"]
    texts = Dataset(store, judged).to_arrow()["text"].to_pylist()
    assert sorted(texts) == sorted(classifiers.texts("positive", 60))
    lists = [ref for ref in judged.attachments if ref.kind == "refs"]
    tables = [read_table(store, ref) for listed in lists for ref in read_refs(store, listed) if ref.kind == "screened"]
    assert sum(table["quality.score"].is_valid().to_pylist().count(True) for table in tables) == 120
    assert not web.run(store.uri, list(files), **EASY, quality={"model": "quality@v1", "min_score": 0.5}).new
    assert web.run(store.uri, list(files), **EASY, quality={"model": "quality@v1", "min_score": 0.6}).new


def test_what_a_version_judged_is_known_to_be_done_and_replayed(store, files, monkeypatch):
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
    train(store, files[:1], files[1:])
    given = web.config(list(files), **EASY, quality={"model": "quality@v1"})
    assert committed(given, store) is None
    manifest = web.run(store.uri, list(files), **EASY, quality={"model": "quality@v1"}).manifest
    assert committed(given, store) == manifest
    replayed = replay(Versions(store), manifest, ["recipe.quality.min_score=0.8"])
    stricter = web.run(store.uri, list(files), **EASY, quality={"model": "quality@v1", "min_score": 0.8}).manifest
    counts = {reason: (before, after) for reason, before, after in replayed.verdicts}
    assert counts["quality.below"] == (60, reasons(store, stricter).count("quality.below"))
    for setting in ("recipe.quality.label=negative", "recipe.quality.windows.count=1"):
        with pytest.raises(BadConfig, match="decides what is measured"):
            replay(Versions(store), manifest, [setting])


def test_growing_by_a_version_of_a_model_takes_only_what_is_new(store, files):
    train(store, files[:1], files[1:])
    recipe = {**EASY, "quality": {"model": "quality@v1"}, "extends": "web"}
    first = web.run(store.uri, files[:1], **recipe)
    assert not web.run(store.uri, files[:1], **recipe).new
    second = web.run(store.uri, list(files), **recipe).manifest
    assert str(second.parent) == str(first.manifest)
    assert web.summary(second) == (120, 60, 60, 0)


def test_a_file_of_the_same_bytes_is_the_same_recipe(store, files, tmp_path):
    model = train(store, files[:1], files[1:]).manifest
    path = tmp_path / "model.bin"
    path.write_bytes(read_object(store, model.shards[0]))
    by_file = web.config(list(files), **EASY, quality={"model": str(path)}).recipe
    by_version = web.config(list(files), **EASY, quality={"model": "quality@v1"}).recipe
    versions = Versions(store)
    assert by_file.with_digests(versions).stages() == by_version.with_digests(versions).stages()


def test_windows_of_a_version_are_those_that_it_was_trained_with(store, files):
    train(store, files[:1], files[1:], windows={"count": 2, "characters": 200})
    recipe = web.config(list(files), quality={"model": "quality@v1"}).recipe.with_digests(Versions(store))
    assert recipe.quality.windows == Windows(2, 200)


@pytest.mark.parametrize(
    ("classifier", "error"),
    [
        ({"model": "web@v1"}, r"recipe\.quality\.model: web@v1 holds documents, no classifier"),
        ({"model": "quality@v7"}, r"recipe\.quality\.model: .*v7"),
        ({"model": "nowhere.bin"}, r"recipe\.quality\.model: .*nowhere\.bin"),
        ({"model": "quality@v1", "sha256": "0" * 64}, r"recipe\.quality\.sha256"),
    ],
)
def test_models_that_cannot_be_used(store, files, classifier, error):
    train(store, files[:1], files[1:])
    web.run(store.uri, files[:1], **EASY)
    with pytest.raises(BadConfig, match=error):
        web.run(store.uri, files[:1], **EASY, quality=classifier)


def test_samples_are_screened_by_what_is_said_in_them(store, tmp_path):
    answer = {"role": "assistant", "content": "I cannot help with that."}
    asked = ["Tell me of bread.", "porn porn porn porn", *(f"porn, {n} times porn, more porn" for n in range(60))]
    path = tmp_path / "chat.jsonl"
    lines = [json.dumps({"messages": [{"role": "user", "content": text}, answer]}) for text in asked]
    path.write_text("\n".join(lines))

    def run(**recipe):
        config = InstructConfig.model_validate({"recipe": {"inputs": [str(path)], **recipe}})
        return run_pipeline(config, store, Runner(store, workers=0)).manifest

    assert web.summary(run()) == (62, 62, 0, 0)
    assert "screen" not in [stage.name for stage in run().stages]
    screened = run(toxic_words={})
    assert reasons(store, screened) == ["toxic_words.adult"] * 61
    shared = run(toxic_words={"keep": 0.5})
    assert 15 < shared.kept.count < 47  # of 62 draws
    assert set(Dataset(store, screened).to_arrow()["id"].to_pylist()) < set(
        Dataset(store, shared).to_arrow()["id"].to_pylist()
    )


def test_what_is_not_switched_on_changes_no_run(store):
    recipe = web.config(["x"]).recipe
    assert not {"quality", "toxic_words", "toxicity"} & recipe.identity().keys()
    assert not {"quality", "toxic_words", "toxicity"} & InstructConfig().recipe.identity().keys()
    assert [stage.name for stage in InstructConfig().recipe.stages()].count("screen") == 0


def test_settings_are_checked_where_they_are_given():
    with pytest.raises(ValueError, match="most=5"):
        ClassifierConfig.model_validate({"recipe": {"train": {"most": 5}}})
    with pytest.raises(ValueError, match="hold_out=1"):
        ClassifierConfig.model_validate({"recipe": {"train": {"hold_out": 1.0}}})
    assert ClassifierConfig().recipe.train.fast_text == FastText()
