"""What is refused when it is deployed, and that the commands of README and docs say what prefect.yaml says."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from gristmill.orchestration import deploy
from gristmill.orchestration.announce import COMMITTED
from gristmill.orchestration.cli.main import app
from gristmill.orchestration.deploy import check, check_parameters
from gristmill.orchestration.stack.folder import POOL, Stack
from gristmill.pipelines.settings.config import BadConfig

ROOT = Path(__file__).parents[2]


def parameters(*settings: str, **others: object) -> dict[str, object]:
    return {"config": str(ROOT / "conf" / "web.yaml"), "settings": list(settings), "lake": None, **others}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["recipe.inputs=[/data/*]"], "for markup and fail on it: quote what stands in brackets"),
        (["recipe.inputs=['/data/*']", "recipe.nope=1"], "recipe.nope: unknown key"),
        (["recipe.inputs=['data/*']"], "relative"),
        (["recipe.inputs=[]"], "recipe.inputs is empty"),
        (["recipe.inputs"], "expected a.b=value"),
        ([3], "3 is no text of the form a.b=c"),
    ],
)
def test_parameters_that_no_night_could_use_are_refused(settings, message):
    with pytest.raises(BadConfig) as refused:
        check_parameters(parameters(*settings))
    assert message in str(refused.value)


@pytest.mark.parametrize("inputs", ["['/data/*']", '["/data/*", "s3://bucket/*"]', "['/data/[a-z]*']"])
def test_what_is_quoted_is_deployed_and_survives_prefects_printing(inputs, monkeypatch, capsys):
    monkeypatch.delenv("GRIST_LAKE", raising=False)  # the worker's, which this shell need not know
    given = parameters(f"recipe.inputs={inputs}")
    assert check(given)["clone"] == str(Path.cwd())
    Console(width=500).print(f"Parameters: {given['settings']}")  # as `prefect deployment run` does
    assert "/data/" in capsys.readouterr().out


@pytest.mark.parametrize(("inputs", "refused"), [("[/data/*]", True), ("['/data/*']", False), ("[s3://b/*]", False)])
def test_the_server_starts_no_run_whose_settings_prefect_cannot_print(inputs, refused):
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.schema_tools.validation import validate

    from gristmill.orchestration.flows import nightly

    schema = parameter_schema(nightly).model_dump_for_openapi()
    errors = validate({"settings": [f"recipe.inputs={inputs}"]}, schema)
    assert bool(errors) is refused


def test_a_refusal_is_one_line_and_an_exit_code(capsys):
    with pytest.raises(SystemExit) as stopped:
        check(parameters("recipe.inputs=['/data/*']", "recipe.a=1", "run.b=2"))
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and line.startswith("error: not deployed: ")
    assert "recipe.a: unknown key" in line and "run.b: unknown key" in line


def test_inputs_that_are_not_there_yet_are_only_said(tmp_path, capsys):
    check(parameters(f"recipe.inputs=['{tmp_path}/*.gz']"))
    assert "deployed all the same" in capsys.readouterr().err
    (tmp_path / "a.gz").touch()
    check(parameters(f"recipe.inputs=['{tmp_path}/*.gz']"))
    assert capsys.readouterr().err == ""


DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_the_file_in_the_repository_passes_its_own_check(deployment, monkeypatch):
    monkeypatch.chdir(ROOT)
    ((step, given),) = deployment["build"][0].items()
    assert step == "gristmill.orchestration.deploy.check" and given["parameters"] == deployment["parameters"]
    check_parameters(given["parameters"])
    assert deployment["pull"][0]["prefect.deployments.steps.set_working_directory"]["directory"] == "{{ clone }}"
    assert deployment["work_pool"] == {"name": POOL}
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_what_an_event_starts_waits_for_the_event_that_flows_send():
    triggers = [
        (deployment["name"], trigger) for deployment in DEPLOYMENTS for trigger in deployment.get("triggers", [])
    ]
    assert [name for name, _ in triggers] == ["training", "mixture"]
    for name, trigger in triggers:
        assert trigger["expect"] == [COMMITTED]
        dataset = trigger["match"]["prefect.resource.id"].removeprefix("gristmill.dataset.")
        (settings,) = (deployment["parameters"]["settings"] for deployment in DEPLOYMENTS if deployment["name"] == name)
        assert any(f"${{{dataset}}}" in setting for setting in settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gates": {"max_topics": 1}}, "gates.max_topics: unknown key; allowed here: max_kept_change, max_language_"),
        ({"gates": {"max_length_drift": "much"}}, "gates.max_length_drift: Input should be a valid number"),
        ({"gates": {"topic_records": 1.5}}, "gates.topic_records: Input should be a valid integer"),
        ({"gates": {"max_language_drift": float("nan")}}, "gates.max_language_drift: Input should be a finite number"),
        ({"gates": {"max_kept_change": 0}}, "gates: max_kept_change=0.0: a factor"),
        (
            {"settings": ["recipe.inputs=['https://me:passw0rd@host/x']"]},
            "settings: recipe.inputs holds a secret after",
        ),
        ({"settings": ["recipe.inputs=['https://host/x?X-Amz-Signature=ab12']"]}, "holds a secret after"),
    ],
)
def test_gates_and_secrets_are_checked_before_a_deployment(given, message):
    with pytest.raises(BadConfig) as refused:
        check_parameters({**parameters("recipe.inputs=['/data/*']"), **given})
    assert message in str(refused.value) and "passw0rd" not in str(refused.value)


@pytest.mark.parametrize("file", ["README.md", "docs/nightly.md", "docs/operations.md", "prefect.yaml"])
def test_every_example_for_prefect_is_quoted_and_the_shell_is_pointed_to_the_stack(file):
    text = (ROOT / file).read_text()
    for line in text.splitlines():
        if line.strip().startswith("- recipe."):
            setting = yaml.safe_load(line)[0]
            assert deploy.can_be_printed(setting), line
    assert text.index('eval "$(grist env)"') < text.index("\nprefect deploy --all") if "\nprefect d" in text else True


def test_env_prints_what_a_shell_evaluates_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIST_HOME", str(tmp_path / "with space"))
    stack = Stack.named("here")
    stack.folder.mkdir(parents=True)
    (stack.folder / "ray-secret").write_text("geheim")
    exports = CliRunner().invoke(app, ["env", "--stack", "here"]).stdout
    exported = dict(shlex.split(line)[1].split("=", 1) for line in exports.splitlines())
    assert exported == stack.exports() and "geheim" not in exports
    assert exports == CliRunner().invoke(app, ["status", "--export", "--stack", "here"]).stdout
    assert json.dumps(exported)
