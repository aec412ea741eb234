"""Forms: a manifest says what its records are; manifests of formats 1 and 2 get the form that their release meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy
from drafts import draft

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table
from gristmill.lake.store.sealed import Unreadable, seal
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.form import FORMS, form_of
from gristmill.lake.versions.manifest import Draft, parse
from gristmill.lake.versions.versions import Versions

GOLDEN = Path(__file__).parents[1] / "golden"
FORM_OF = {"web": "documents", "web.limit": "documents", "chat": "samples", "bpe": "tokenizer", "mix": "windows"}


def manifest_files(number: int) -> list[Path]:
    return sorted((GOLDEN / f"lake-format-{number}").glob("datasets/*/versions/*.json"))


@pytest.mark.parametrize("path", [*manifest_files(1), *manifest_files(2)], ids=lambda p: "/".join(p.parts[-5:]))
def test_a_manifest_of_an_earlier_format_gets_its_form(path):
    data = path.read_bytes()
    manifest = parse(data)
    assert b'\n "form"' not in data and manifest.form == FORM_OF[manifest.dataset]
    manifest.check_shards()
    assert manifest.digest == manifest.content_digest


@pytest.mark.parametrize(
    ("recipe", "kinds", "form"),
    [
        ({"exact": {}}, {"shard"}, "documents"),
        ({"exact": {}}, {"list", "shard"}, "documents"),  # a list of many shards
        ({"exact": {}}, set(), "documents"),
        ({"instruct": {}}, {"list"}, "samples"),
        ({"window": 4096, "tokenizer": "bpe@v1"}, {"list"}, "windows"),
        ({"train": {}, "limit": None}, {"tokenizer"}, "tokenizer"),
        ({"file": "ab"}, {"tokenizer"}, "tokenizer"),
        ({"files": {}}, {"weights", "model", "tokenizer"}, "model"),
    ],
)
def test_what_earlier_releases_wrote_is_told_by_their_recipes(recipe, kinds, form):
    assert form_of(recipe, kinds) == form


def test_what_no_release_wrote_is_refused_and_named(store: Store):
    versions = Versions(store)
    manifest = toy.commit(store, "web", range(4))
    fields = json.loads(manifest.model_dump_json()) | {"format": 2}
    del fields["form"]
    fields["shards"][0]["kind"] = "clips"
    key = "datasets/web/versions/00000001.json"
    store.put(key, seal(json.dumps(fields, indent=1).encode()))
    with pytest.raises(Unreadable, match=r"web@v1: its manifest .* no release wrote shards of kind clips"):
        versions.manifest("web", 1)
    del fields["shards"]
    with pytest.raises(ValueError, match="recipe"):
        parse(seal(json.dumps(fields | {"recipe": 3}, indent=1).encode()))


def test_since_format_3_a_manifest_names_its_form(store: Store):
    manifest = toy.commit(store, "web", range(4))
    assert manifest.format == 3 and manifest.form == "documents"
    fields = json.loads(manifest.model_dump_json())
    del fields["form"]
    with pytest.raises(ValueError, match="form"):
        parse(seal(json.dumps(fields, indent=1).encode()))
    with pytest.raises(ValueError, match="form"):
        Draft(**{**draft("web", "k", []).model_dump(), "form": "clips"})


def test_a_shard_that_the_form_does_not_have_is_not_committed_and_would_be_found(store: Store):
    shard = put_table(store, "pack", toy.shard_table(range(3)))
    wrong = draft("web", "k", ["01"], (shard,))
    with pytest.raises(ValueError, match=r"web: shards of kind pack in a version of documents; allowed: shard\. Give"):
        Versions(store).commit(wrong)
    assert Versions(store).numbers("web") == []
    Versions(store).commit(draft("web", "k", ["01"], (shard.model_copy(update={"kind": "shard"}),)))
    key = "datasets/web/versions/00000001.json"
    changed = json.loads(store.get(key)) | {"form": "model"}
    del changed["seal"]
    store.put(key, seal(json.dumps(changed, indent=1).encode()))
    assert any("shards of kind shard in a version of model" in finding.message for finding in verify(store))


def test_the_content_digest_does_not_hang_on_the_form(store: Store):
    shard = ObjectRef(kind="shard", sha256="ab" * 32, bytes=1, records=1)
    digests = {draft("web", "k", ["01"], (shard,), form=form).content_digest for form in FORMS}
    assert len(digests) == 1
