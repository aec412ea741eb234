"""What `pip install` gives: the wheel, in a fresh environment, used from a folder that is no checkout.

The dependencies are those of this environment, by a path: nothing is fetched. That plain resolution is enough is a
question to their metadata.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OTHERS_FASTTEXT = {"fasttext", "fasttext-wheel", "fasttext-predict", "fasttext-predict-v2"}
"""Packages that write another module `fasttext` over that of fasttext-numpy2-wheel."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `bin` of a fresh environment with the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    hidden = shutil.ignore_patterns(
        ".*", "build", "*.egg-info", "__pycache__", "tests", "benchmarks", "lake-data", "demo"
    )
    shutil.copytree(ROOT, folder / "source", ignore=hidden)  # a build leaves its traces beside the source
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, folder / "source"]
    subprocess.run(build, check=True, env=clean_environment(), cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    install = [*pip, "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, env=clean_environment(), cwd=folder)
    (own,) = (folder / "env" / "lib").glob("python*/site-packages")
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "GRIST_LAKE")}


def elsewhere(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    (folder / "tmp").mkdir(exist_ok=True)
    environment = clean_environment() | {"GRIST_HOME": str(folder / "state"), "TMPDIR": str(folder / "tmp")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_code_that_runs_is_the_wheels(installed, tmp_path):
    code = "from gristmill import filters, pipelines; print(filters.__file__, pipelines.__file__, sep='\\n')"
    done = elsewhere(tmp_path, installed / "python", "-c", code)
    assert all(line.startswith(str(installed.parent)) for line in done.stdout.splitlines()), done.stderr


def test_a_run_by_name_from_another_folder(installed, tmp_path, sample):
    settings = [f"recipe.inputs=['{sample}/crawl/*']", "recipe.max_quarantine_rate=0.2", "run.workers=0"]
    arguments = ["run", "web", "--lake", "lake", *(part for setting in settings for part in ("--set", setting))]
    done = elsewhere(tmp_path, installed / "grist", *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["dataset"] == "web" and result["kept"] > 50
    shown = elsewhere(tmp_path, installed / "grist", "show", "web", "--lake", "lake")
    assert "web@v1" in shown.stdout
    again = elsewhere(tmp_path, installed / "python", "-m", "gristmill.pipelines", *arguments)
    assert json.loads(again.stdout.splitlines()[-1]) == {**result, "new": False}


def test_workers_of_ray_have_the_installed_code(installed, tmp_path):
    """There is no checkout that a job could bring along: the code is where the job's python is."""
    text = "the miller took the grain that we brought to mill {} and of it made flour with a stone. "
    rows = [{"url": f"https://a.example/{n}", "text": text.format(n) * 6} for n in range(5)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["recipe.inputs=[texts.jsonl]", "recipe.language.min_score=0", "recipe.minhash=null"]
    digests = []
    for workers in (1, 0):
        given = [part for setting in (*settings, f"run.workers={workers}") for part in ("--set", setting)]
        done = elsewhere(tmp_path, installed / "grist", "run", "web", "--lake", f"lake-{workers}", *given)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["kept"] == 5, result
        digests.append(result["digest"])
    assert digests[0] == digests[1]
    assert not list((tmp_path / "tmp").glob("grist-*")), "scratch folders, also Ray's"
    exported = elsewhere(tmp_path, installed / "grist", "export", "dataset", "web", "out", "--lake", "lake-1")
    assert exported.returncode == 0 and (tmp_path / "out" / "grist.json").exists(), exported.stderr


def test_a_name_that_is_none_says_which_there_are_and_a_path_says_what_to_type(installed, tmp_path):
    unknown = elsewhere(tmp_path, installed / "grist", "run", "webb", "--lake", "lake")
    assert (
        unknown.returncode == 2
        and "there are classifier, evaluate, everything-paper, everything, grpo, instruct, mixture, model, preference,"
        " reasoning, speech, tokenizer, train-nano,"
        " train-paper, train-reasoning-nano, train-reasoning-paper, train-speech-nano, train-speech-paper,"
        " train-vision-nano, train-vision-paper, train, vision, web"
        in unknown.stderr
    )
    path = elsewhere(tmp_path, installed / "grist", "run", "conf/web.yaml", "--lake", "lake")
    assert path.returncode == 2 and "`web` alone is the one that comes with gristmill" in path.stderr


def test_the_doctor_examines_an_installation(installed, tmp_path):
    done = elsewhere(tmp_path, installed / "grist", "doctor", "--json")
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["language model"]["level"] == "ok" and findings["fasttext"]["level"] == "ok", findings
    assert "make setup" not in done.stdout  # there is no Makefile


def test_plain_resolution_never_pulls_another_module_fasttext():
    """Every requirement of ours, and of theirs as installed here: `pip install .` needs no flags."""
    for name in all_requirements():
        assert canonicalize_name(name) not in OTHERS_FASTTEXT, name


def all_requirements() -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(requirement for extra in project["optional-dependencies"].values() for requirement in extra),
    ]
    ahead = [(Requirement(text), "") for text in declared]
    seen: set[tuple[str, str]] = set()
    while ahead:
        requirement, extra = ahead.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        yield requirement.name
        for wanted in ["", *requirement.extras]:
            if (requirement.name, wanted) in seen:
                continue
            seen.add((requirement.name, wanted))
            try:
                texts = importlib.metadata.requires(requirement.name) or []
            except importlib.metadata.PackageNotFoundError:  # of another platform
                continue
            ahead += [(Requirement(text), wanted) for text in texts]
