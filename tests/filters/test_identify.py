"""Identifiers by name: what each answers in the codes of `language.keep`, and what is said where one cannot be."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fast_text_models
import pyarrow as pa
import pytest

from gristmill.filters.identify import names
from gristmill.filters.identify.codes import short_code
from gristmill.filters.identify.names import identifier
from gristmill.filters.identify.packages import Cld2, Eldc, Heliport, named
from gristmill.filters.language import LanguageFilter, deciding
from gristmill.filters.text.docs import Docs
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.web import WebRecipe

ENGLISH = "The miller grinds the grain into flour and sells it at the market every Saturday morning."
GERMAN = "Der Müller mahlt das Korn zu Mehl und verkauft es jeden Samstagmorgen auf dem Markt."
JAPANESE = "粉屋は穀物を挽いて小麦粉にし、毎週土曜日の朝に市場で売ります。"
PACKAGES = {"cld2": "pycld2", "eldc": "eldc", "heliport": "heliport"}


def docs(*texts: str) -> Docs:
    return Docs(pa.array(texts, pa.string()))


@pytest.fixture(autouse=True)
def nothing_loaded() -> Iterator[None]:
    """Packages are looked for anew, by each test and by those behind it."""
    names._packaged.cache_clear()
    yield
    names._packaged.cache_clear()


@pytest.mark.parametrize(
    ("label", "code"),
    [
        *(("eng_Latn", "en"), ("srp_Cyrl", "sr"), ("srp_Latn", "sr"), ("cmn_Hani", "zh"), ("arb_Arab", "ar")),
        *(("arz_Arab", "arz"), ("yue_Hani", "yue"), ("nob", "no"), ("nno", "nn"), ("fil", "tl"), ("zh-Hant", "zh")),
        *(("iw", "he"), ("en", "en"), ("lzh_Hani", "lzh"), ("swh_Latn", "sw"), ("gsw_Latn", "gsw"), ("ceb", "ceb")),
    ],
)
def test_codes(label: str, code: str) -> None:
    assert short_code(label) == code


def test_scores_of_one_language_are_added_and_what_is_none_is_left_out() -> None:
    scores = [("zh", 0.5), ("un", 0.2), ("zh-Hant", 0.25), ("xx-Latn", 0.1), ("und", 0.3), ("zxx", 0.3), ("iw", 0.1)]
    assert named(scores) == {"zh": 0.75, "he": 0.1}


def cld2() -> types.ModuleType:
    """As pycld2 answers."""
    module: Any = types.ModuleType("pycld2")
    module.LANGUAGES = (("ENGLISH", "en"), ("HEBREW", "iw"), ("Unknown", "un"), ("GERMAN", "de"), ("KLINGON", "tlh"))
    module.DETECTED_LANGUAGES = ("ENGLISH", "HEBREW", "GERMAN")
    unknown = ("Unknown", "un", 0, 0.0)

    def detect(line: str, isPlainText: bool, bestEffort: bool) -> tuple[bool, int, Any]:  # noqa: N803
        assert isPlainText and bestEffort and line.isprintable()
        if "müller" in line:
            return True, len(line), (("GERMAN", "de", 90, 700.0), ("HEBREW", "iw", 8, 300.0), unknown)
        return False, 0, (unknown, unknown, unknown)

    module.detect = detect
    return module


def eldc() -> types.ModuleType:
    """As eldc answers."""
    module: Any = types.ModuleType("eldc")
    module.LANGUAGES = ["en", "de", "no"]
    module.init = lambda: None

    class Detector:
        def set_scores(self, count: int) -> None:
            assert count == 2

        def detect_details(self, line: str) -> Any:
            scores = {"de": 0.8, "no": 0.5} if "müller" in line else {}
            return types.SimpleNamespace(language=next(iter(scores), "und"), reliable=True, scores=scores)

    module.instance = Detector
    return module


def heliport() -> types.ModuleType:
    """As heliport answers."""
    module: Any = types.ModuleType("heliport")

    class Identifier:
        def get_confidence_all(self) -> dict[str, float]:
            return {"deu": 0.1, "eng": 0.2, "gsw": 0.1}

        def identify_topk_with_score(self, line: str, count: int) -> list[tuple[str, float]]:
            assert count == 2
            return [("deu", 4.0), ("gsw", 5.0)] if "müller" in line else [("zxx", 7.0)]

    module.Identifier = Identifier
    return module


@pytest.mark.parametrize(
    ("kind", "module", "labels", "expected"),
    [
        (Cld2, cld2, {"en", "he", "de"}, {"de": 0.9, "he": 0.08}),
        (Eldc, eldc, {"en", "de", "no"}, {"de": 0.8, "no": 0.5}),
        (Heliport, heliport, {"en", "de", "gsw"}, {"de": 10 / 11, "gsw": 1 / 11}),
    ],
)
def test_what_a_package_answers_is_put_in_our_codes_and_on_one_scale(
    kind: Any, module: Any, labels: set[str], expected: dict[str, float]
) -> None:
    chosen = kind(module())
    assert chosen.labels == labels
    german, nothing = chosen.best(["der\x00müller\ufffe", "12"])
    assert german == pytest.approx(expected) and nothing == {}


def test_a_package_decides_what_is_kept_and_its_version_is_part_of_the_identity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pycld2", cld2())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"pycld2": "0.99"}[name])
    chosen = LanguageFilter(keep=("de",), identifier="cld2")
    measures = chosen.measure(docs(GERMAN, "12 34"))
    assert measures.column("language").to_pylist() == ["de", None]
    assert measures.column("language_score").to_pylist() == [pytest.approx(0.9), None]
    assert chosen.rule(measures).to_pylist() == [None, "language.no_text"]
    assert chosen.config() == {"keep": ("de",), "min_score": 0.65, "identifier": "cld2 0.99"}
    with pytest.raises(
        ValueError, match=r"keep has \['tlh'\], which the model never answers; use its labels: de en he"
    ):
        LanguageFilter(keep=("tlh",), identifier="cld2").check()


@pytest.mark.parametrize(("name", "distribution"), PACKAGES.items())
def test_a_package_that_is_not_installed_is_named_with_its_command(
    name: Any, distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, distribution, None)
    message = rf"package {distribution} is not installed here .*; pip install {distribution}"
    with pytest.raises(RuntimeError, match=message):
        LanguageFilter(identifier=name).check()
    with pytest.raises(BadConfig, match=rf"recipe\.language: the {message}"):
        WebRecipe(language=LanguageFilter(identifier=name)).check({})  # type: ignore[arg-type]  # looks nothing up


def absent(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


def test_a_version_that_nobody_knows_is_said_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(RuntimeError, match="pip install eldc"):
        LanguageFilter(identifier="eldc").config()


def test_the_default_is_what_it_was_before_there_were_others() -> None:
    assert set(LanguageFilter().config()) == {"keep", "min_score", "model_sha256"}
    assert "identifier" not in WebRecipe().identity()["language"]
    fields = {"keep": ("en",), "identifier": "eldc", "model_path": None}
    assert deciding(fields) == {"keep": ("en",), "identifier": "eldc"}
    assert LanguageFilter(identifier="eldc") != LanguageFilter()
    assert LanguageFilter().unmeasured(LanguageFilter(identifier="eldc")) == ("identifier",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"identifier": "cld3"}, r"identifier is 'cld3'; allowed are cld2, eldc, glotlid, heliport, lid\.176"),
        ({"identifier": "eldc", "min_score": "by_language"}, "scores of lid.176 and none of eldc; give one number"),
        ({"identifier": "eldc", "model_path": "model.bin"}, "eldc has its model within its package"),
        ({"identifier": "glotlid"}, "glotlid needs its file: give its path as model_path"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageFilter(**fields).check()
    with pytest.raises(ValueError, match="no file"):
        LanguageFilter(identifier="eldc").model_digest()


def test_glotlids_labels_are_put_in_our_codes(tmp_path: Path) -> None:
    data = fast_text_models.model_bytes(loss="softmax", minn=2, maxn=4)
    for label, other in (
        ("en", "eng_Latn"),
        ("de", "deu_Latn"),
        ("ru", "srp_Cyrl"),
        ("el", "srp_Latn"),
        ("ja", "jpn_Jpan"),
    ):
        data = data.replace(f"__label__{label}\0".encode(), f"__label__{other}\0".encode())
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    glotlid = LanguageFilter(keep=("en", "sr"), identifier="glotlid", model_path=str(path))
    sentences = ("the miller grinds grain", "der müller mahlt das korn", "мельник мелет зерно", "ο μυλωνάς αλέθει")
    measures = glotlid.measure(docs(*sentences))
    assert measures.column("language").to_pylist() == ["en", "de", "sr", "sr"]
    assert glotlid.rule(measures).to_pylist() == [None, "language.unwanted", None, None]
    assert glotlid.config()["identifier"] == "glotlid"
    assert glotlid.config()["model_sha256"] == glotlid.model_digest()
    assert identifier("glotlid", str(path)).labels == {"en", "de", "sr", "ja"}
    of_both = identifier("glotlid", str(path)).best(["мельник ο μυλωνάς"])[0]
    assert of_both["sr"] > 0.9, "scripts of one language are added"
    with pytest.raises(FileNotFoundError):
        LanguageFilter(identifier="glotlid", model_path=str(tmp_path / "absent.bin")).check()


@pytest.mark.parametrize(("name", "distribution"), PACKAGES.items())
def test_the_package_itself(name: Any, distribution: str) -> None:
    pytest.importorskip(distribution, reason=f"{distribution} is not installed, which is as it may be")
    chosen = LanguageFilter(keep=("en", "de", "ja"), identifier=name)
    odd = ("", "\x00", "12 34", "...", "\ufdd0\x1b", "a\x00b", "\U0010ffff")
    measures = chosen.measure(docs(ENGLISH, GERMAN, JAPANESE, ENGLISH.replace(" ", "\x07 "), *odd))
    assert measures.column("language").to_pylist()[:4] == ["en", "de", "ja", "en"]
    assert all(0 <= score <= 1 for score in measures.column("language_score").to_pylist() if score is not None)
    assert chosen.rule(measures).to_pylist()[:4] == [None] * 4
    assert len(chosen.measure(docs())) == 0
    assert chosen.config()["identifier"] == f"{name} {importlib.metadata.version(distribution)}"
