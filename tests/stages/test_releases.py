"""What others' packages decide stands in the identity of the stage: another release is other work."""

from __future__ import annotations

import importlib.metadata
import json

import pytest
import web

from gristmill.filters.c4 import C4Quality
from gristmill.filters.datatrove_filter import DatatroveFilter
from gristmill.filters.edits.c4_lines import C4Lines
from gristmill.filters.edits.pii import Pii
from gristmill.filters.fineweb import FineWebQuality
from gristmill.filters.gopher import GopherQuality
from gristmill.filters.language_quality import LanguageQuality
from gristmill.filters.repetition import GopherRepetition
from gristmill.filters.text.docs import Docs
from gristmill.filters.url import UrlRules
from gristmill.lake.query.diff import diff
from gristmill.lake.query.query import describe
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.growth import growth_report
from gristmill.stages.core import releases
from gristmill.stages.generate.judge import Verify
from gristmill.stages.generate.verifiers import Checks
from gristmill.stages.speech.form import FormSpeech
from gristmill.stages.text.edit import EditTexts
from gristmill.stages.text.screen import Screen
from gristmill.stages.vision.form import FormImages
from gristmill.stages.vision.frames import FormFrames

WORDS = ["datatrove", "spacy"]
SYMBOLIC = ["latex2sympy2-extended", "math-verify", "sympy"]


@pytest.mark.parametrize(
    ("stage", "asked"),
    [
        (Screen((GopherQuality(),), Docs), WORDS),
        (Screen((GopherRepetition(),), Docs), WORDS),
        (Screen((C4Quality(),), Docs), WORDS),
        (Screen((FineWebQuality(),), Docs), WORDS),
        (Screen((LanguageQuality(),), Docs), WORDS),
        (Screen((GopherQuality(), C4Quality(), UrlRules()), Docs), WORDS),  # each once
        (Screen((DatatroveFilter("UnigramLogProbFilter"),), Docs), ["spacy"]),  # datatrove's stands in its config
        (Screen((UrlRules(),), Docs), []),
        (EditTexts((C4Lines(), Pii())), ["datatrove"]),
        (EditTexts((Pii(),)), []),
        (FormImages(), ["pillow"]),
        (FormFrames(), ["av", "pillow"]),
        (FormSpeech(), ["pillow", "soundfile"]),
        (Verify("maths"), SYMBOLIC),
        (Verify("maths", Checks(symbolic=False)), []),
        (Verify("choice"), []),
    ],
)
def test_a_stage_names_the_packages_that_judge_for_it(monkeypatch, stage, asked) -> None:
    monkeypatch.setattr(releases, "installed_release", lambda name: f"1.0 of {name}")
    before = stage.identity()
    assert [part.name for part in before if "release" in part.config] == asked
    monkeypatch.setattr(releases, "installed_release", lambda name: f"2.0 of {name}")
    changed = [now.name for then, now in zip(before, stage.identity(), strict=True) if then != now]
    assert changed == asked


def test_a_release_is_the_one_that_is_installed() -> None:
    (part,) = releases.release_ids(["spacy", "spacy"])
    assert (part.name, part.config) == ("spacy", {"release": importlib.metadata.version("spacy")})
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        releases.release_ids(["of-nobody"])


def test_a_release_that_changed_on_the_way_is_named(tmp_path, monkeypatch) -> None:
    """Before, versions were told apart by VERSIONs alone: by one release and by two they looked the same."""
    pages = [f"The miller of village {n} took the grain that we had brought, and he ground it." for n in range(2)]
    for number, text in enumerate(pages):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps({"text": text}) + "\n")
        now = {"fastwarc": "2.0", "resiliparse": f"2.{number}"}
        monkeypatch.setattr(releases, "installed_release", now.__getitem__)
        files = [tmp_path / f"{n}.jsonl" for n in range(number + 1)]
        web.run(tmp_path / "lake", files, gopher_quality=None, gopher_repetition=None, extends="web")
    versions = Versions(open_store(str(tmp_path / "lake")))
    about = describe(versions, "web")
    assert about.changed == ("stage resiliparse",)
    assert "not by one recipe (stage resiliparse changed on the way)" in str(
        growth_report(about.manifest, about.changed)
    )
    (before, after) = (versions.read("web", number)[0] for number in (1, 2))
    assert diff(versions.store, before, after).stages == (("resiliparse", "2.0", "2.1"),)
