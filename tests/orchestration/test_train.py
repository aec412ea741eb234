"""The command `grist` on models that were trained: the run, and what people see of its result."""

from __future__ import annotations

import json

import pytest
import yaml
from training import adapt, adapted, config, prepare, stage
from typer.testing import CliRunner

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.main import app
from gristmill.orchestration.show.training import verdict_line
from gristmill.pipelines.command import main
from gristmill.pipelines.settings.exits import BAD_CONFIG, GATE


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A lake with `nano.pretrain@v1` and `nano.adapt@v1`, and the file of the recipe that made them."""
    folder = tmp_path_factory.mktemp("trained")
    store = open_store(str(folder / "lake"))
    prepare(store)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(json.loads(config(stage(), adapt()).model_dump_json())))
    result = CliRunner().invoke(app, ["train", str(path), "--lake", store.uri])
    assert result.exit_code == 0, result.output
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["dataset"], last["version"], last["new"]) == ("nano.adapt", 1, True)
    return store, path


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


def grist(store, *args, code=0):
    """The result of a command."""
    result = CliRunner().invoke(app, [*args, "--lake", store.uri])
    assert result.exit_code == code, result.output
    return result


def test_a_recipe_that_is_done_is_not_trained_again_by_any_of_its_commands(lake, capsys):
    store, path = lake
    assert json.loads(grist(store, "train", str(path)).stdout.splitlines()[-1])["new"] is False
    assert json.loads(grist(store, "run", str(path)).stdout.splitlines()[-1])["new"] is False
    assert main(["run", str(path), "--lake", store.uri]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["new"] is False
    assert Versions(store).numbers("nano.pretrain") == [1]


def test_show_says_how_a_model_was_trained(lake):
    store, _ = lake
    shown = grist(store, "show", "nano.adapt").stdout
    for words in (
        "Training  adapt",
        "final loss",
        "nats a token",
        "s on 1 rank",
        "Gates",
        "bit for bit those that the stage started from",
    ):
        assert words in shown
    base = json.loads(grist(store, "show", "nano.adapt", "--json").stdout)["statistics"]["bases"]["lora_vision"]
    assert f"lora_vision  {base}" in shown
    assert "trained_on seen@v1" in grist(store, "lineage", "nano.adapt").stdout


def test_a_gate_that_does_not_apply_is_not_said_to_have_passed():
    assert verdict_line({"passed": True, "why": "all changed"}) == "passed: all changed"
    assert verdict_line({"passed": None, "why": "does not apply: ..."}) == "does not apply: ..."


def test_forget_says_that_weights_do_not_forget(lake, tmp_path):
    store, _ = lake
    (tmp_path / "urls").write_text("https://web.example/3\n")
    printed = grist(store, "forget", "--urls", str(tmp_path / "urls"), "--reason", "request 17").stdout
    shown = " ".join(printed.split())
    assert "made from them: nano.adapt@v1 (trained_on), stays: weights cannot be made to forget a record" in shown
    assert "grist withdraw nano.pretrain@v1" in shown


def test_a_plan_and_what_is_refused(lake, tmp_path):
    store, path = lake
    planned = grist(store, "train", str(path), "--plan", "--set", "recipe.stages.0.seed=7")
    assert json.loads(planned.stdout.splitlines()[-1])["plan"] == [{"stage": "train", "done": 0, "todo": 1}]
    refused = grist(store, "train", str(path), "--set", "recipe.model=giant", code=BAD_CONFIG)
    assert "recipe.model: 'giant': allowed are nano" in refused.stderr
    assert "a model is trained whole" in grist(store, "run", str(path), "--limit", "3", code=BAD_CONFIG).stderr


def test_a_model_that_does_not_pass_a_gate_is_not_committed_and_not_trained_again(lake, tmp_path, caplog):
    """A step that is smaller than any number has room for leaves a part what it was."""
    store, _ = lake
    still = adapt(name="still", init_from=adapted("nano.adapt@v1"), trainable=["lora_vision"])
    still |= {"optim": {"lr": 1e-30, "weight_decay": 0}, "gates": ["trained_parts"]}
    path = tmp_path / "still.yaml"
    path.write_text(yaml.safe_dump(json.loads(config(still).model_dump_json())))
    failed = grist(store, "train", str(path), code=GATE).stderr
    assert "nano.still did not pass its gates, and nothing was committed" in failed and "trained_parts: " in failed
    assert not Versions(store).numbers("nano.still")
    caplog.clear()
    grist(store, "train", str(path), code=GATE)
    # with other gates the same training becomes a version
    grist(store, "train", str(path), "--set", "recipe.stages.0.gates=[frozen_parts]")
    assert Versions(store).numbers("nano.still") == [1]
    done = [record.getMessage() for record in caplog.records if record.getMessage().startswith("train: ")]
    assert done == ["train: its only piece was done before"] * 2
