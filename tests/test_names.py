"""One name: code is `gristmill.*` wherever it runs, loaded once; nobody's own `lake.py` or `model.py` is in its way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import web
from lake_builder import commit, pages

from gristmill.lake.store.opening import open_store

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PACKAGES = ("filters", "lake", "model", "orchestration", "pipelines", "stages", "synth")

LOADED = """
import json, os, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
files = {}
for name, module in list(sys.modules.items()):
    if getattr(module, "__file__", None):
        files.setdefault(os.path.realpath(module.__file__), []).append(name)
root = os.path.realpath(os.environ["OURS"]) + os.sep
own = [names for file, names in files.items() if file.startswith(root) and "site-packages" not in file]
print(json.dumps(own))
"""
"""Runs a module as `python -m` does, then prints the names of each of our files that is loaded."""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "GRIST_LAKE")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment(**more), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A user's folder, with modules of the names of our packages."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in (*PACKAGES, "benchmarks", "tests"):
        (folder / f"{name}.py").write_text(f"OWN = {name!r}\n")
    return folder


@pytest.fixture
def lake(tmp_path: Path) -> str:
    uri = str(tmp_path / "lake")
    commit(open_store(uri), "web", pages(20))
    return uri


SCRIPT = """
import filters, lake, model, orchestration, pipelines, stages, synth
import gristmill
assert [lake.OWN, model.OWN, stages.OWN] == ["lake", "model", "stages"]
web = gristmill.open("web@v1")
print(len(list(web)), len(web.to_pandas()))
from gristmill.pipelines import command
from gristmill.orchestration.cli import main
from gristmill.model.phi4.presets import PRESETS
gristmill.engine(gristmill.Model("toy", gristmill.model.phi4.multimodal.Multimodal.seeded(PRESETS["nano"], 0), None))
print(lake.OWN, sorted(name for name in sys.modules if name.partition(".")[0] in PACKAGES))
"""


@pytest.mark.parametrize("command", [["script.py"], ["-m", "script"]])
def test_a_users_own_modules_are_theirs_and_gristmill_is_ours(command, users_folder, lake):
    ahead = f"import sys\nPACKAGES = {PACKAGES!r}\nimport gristmill.model.phi4.multimodal\n"
    (users_folder / "script.py").write_text(ahead + SCRIPT)
    lines = run(sys.executable, *command, cwd=users_folder, GRIST_LAKE=lake).splitlines()
    assert lines == ["20 20", f"lake {list(PACKAGES)}"]


def test_the_command_started_beside_them(users_folder, lake, sample):
    shown = run(
        sys.executable, "-m", "gristmill.orchestration.cli.main", "ls", "--lake", lake, "--json", cwd=users_folder
    )
    assert json.loads(shown)
    inputs = f"recipe.inputs=[{sample}/crawl/*]"  # reading starts a child by `-m`, in this folder
    settings = ["--set", inputs, "--set", "recipe.max_quarantine_rate=0.2", "--set", "run.workers=0"]
    arguments = [
        "run",
        str(ROOT / "conf" / "web.yaml"),
        "--lake",
        str(users_folder / "new-lake"),
        *settings,
        "--limit",
        "20",
    ]
    assert '"dataset": "web.limit"' in run(sys.executable, "-m", "gristmill.pipelines", *arguments, cwd=users_folder)


def test_after_a_run_every_module_has_one_name(sample, tmp_path):
    settings = [
        f"recipe.inputs=[{sample}/crawl/*]",
        "recipe.max_quarantine_rate=0.2",
        "run.workers=0",
        "recipe.limit=20",
    ]
    arguments = ["run", "conf/web.yaml", *(part for text in settings for part in ("--set", text))]
    command = [sys.executable, "-c", LOADED, "pipelines", *arguments, "--lake", str(tmp_path / "lake")]
    output = run(*command, cwd=ROOT, OURS=str(ROOT))
    names = json.loads(output.splitlines()[-1])
    assert len(names) > 50
    assert {tuple(sorted(twice)) for twice in names if len(twice) > 1} <= {("gristmill.pipelines", "pipelines")}
    door = {"pipelines", "pipelines.__main__", "__main__", "__mp_main__"}
    assert not [name for group in names for name in group if not name.startswith("gristmill") and name not in door]


def test_importing_gristmill_imports_nothing_else(tmp_path):
    code = "import sys; before = set(sys.modules); import gristmill; print(*{*sys.modules} - before)"
    imported = run(sys.executable, "-c", code, cwd=tmp_path).split()
    assert [name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names] == ["gristmill"]
    assert not {"asyncio", "json", "pathlib", "subprocess"} & {*imported}


def test_opening_a_version_imports_neither_torch_nor_ray(lake, tmp_path):
    code = (
        "import sys, gristmill; list(gristmill.open('web@v1')); print({'torch', 'ray', 'prefect'} & set(sys.modules))"
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path, GRIST_LAKE=lake) == "set()\n"


def test_a_copy_without_links_works_too(tmp_path):
    """As an archive leaves it that Python's zipfile unpacks, or git on Windows: a small file where a link was."""
    archive, copy = tmp_path / "copy.zip", tmp_path / "copy"
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted((ROOT / "gristmill").iterdir()):
            if path.is_symlink():
                target.writestr(f"gristmill/{path.name}", os.readlink(path))
            elif path.is_file():
                target.write(path, f"gristmill/{path.name}")
    with zipfile.ZipFile(archive) as source:
        source.extractall(copy)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", copy / "conf")
    code = (
        "from gristmill.pipelines.settings.shipped import configurations; from gristmill import lake;"
        "print(lake.__name__, lake.__file__, configurations()['web'])"
    )
    output = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(copy))
    assert output.split() == ["gristmill.lake", str(copy / "lake" / "__init__.py"), str(copy / "conf" / "web.yaml")]


def test_what_ray_packs_has_every_package_once_and_runs(tmp_path):
    from ray._private.runtime_env import packaging

    name = tmp_path / "packed.zip"
    packaging.create_package(str(ROOT), name, include_gitignore=True)
    with zipfile.ZipFile(name) as archive:
        packed = archive.namelist()
        archive.extractall(tmp_path / "job")
    assert {f"gristmill/{package}/__init__.py" for package in PACKAGES} <= set(packed)
    assert not [entry for entry in packed if entry.split("/")[0] in {*PACKAGES, "tests", "docs"} - {"pipelines"}]
    job = tmp_path / "job"
    shown = run(sys.executable, "-m", "pipelines", "run", "--help", cwd=job, PYTHONPATH="")
    assert "usage: python -m pipelines run" in shown
    where = run(sys.executable, "-c", "from gristmill import stages; print(stages.__file__)", cwd=job, PYTHONPATH="")
    assert Path(where.strip()).resolve() == job / "gristmill" / "stages" / "__init__.py"


def test_a_pickle_names_gristmill_and_nothing_else(tmp_path):
    """What Ray sends to a worker, whose path may hold other modules of these names."""
    import pickle

    import cloudpickle

    config = web.config([])
    for data in (pickle.dumps(config), cloudpickle.dumps(config)):
        assert b"gristmill.pipelines" in data
    code = "import pickle, sys; print(type(pickle.load(sys.stdin.buffer)).__module__)"
    process = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(config), cwd=tmp_path, env=environment(), capture_output=True
    )
    assert process.stdout.decode().startswith("gristmill.pipelines"), process.stderr.decode()
