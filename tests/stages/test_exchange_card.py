"""The card of an exported version: what the manifest knows, and no foreign text that ends a cell or front matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lake_builder
import pytest
import yaml
from exchanges import build, copied, version, written

from gristmill.lake.query.query import Node
from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Draft
from gristmill.lake.versions.versions import Versions
from gristmill.stages.exchange.about import Publication
from gristmill.stages.exchange.card import _lineage, cell, size_category
from gristmill.stages.exchange.export import CARD


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("exchange"))


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Store:
    return copied(built, tmp_path)


def front_matter(folder: Path) -> dict[str, Any]:
    _, matter, _ = (folder / CARD).read_text().split("---\n", 2)
    return yaml.safe_load(matter)


def test_the_card_says_what_the_manifest_knows(store: Store, tmp_path: Path) -> None:
    manifest = lake_builder.commit(store, "pages", lake_builder.mixed_pages())
    written(store, manifest, tmp_path / "out", "hf", published=Publication("odc-by", "https://acme.example/web"))
    matter, text = front_matter(tmp_path / "out"), (tmp_path / "out" / CARD).read_text()
    assert (matter["pretty_name"], matter["license"]) == ("pages@v1", "odc-by")
    assert matter["size_categories"] == ["n<1K"]
    assert matter["dataset_info"]["splits"][0]["num_examples"] == manifest.kept.count
    assert {feature["name"] for feature in matter["dataset_info"]["features"]} == set(lake_builder.TEXT.names)
    assert manifest.digest in text
    assert f"| {manifest.received.count} | {manifest.kept.count} | {manifest.dropped.count} |" in text
    for row in manifest.funnel:
        for reason, count in {**row.dropped, **row.quarantined}.items():
            assert f"{cell(reason)} ({count})" in text
    bare = tmp_path / "bare"
    written(store, manifest, bare, "hf")
    assert front_matter(bare)["license"] == "unknown" and "Not stated" in (bare / CARD).read_text()


def test_no_foreign_text_ends_a_cell_or_the_front_matter(store: Store, tmp_path: Path) -> None:
    hostile = 'x|y\n---\n<script>alert(1)</script> [a](http://b) "`'
    base = version(store, "web@v1")
    draft = base.model_copy(
        update={
            "dataset": "hostile",
            "run_key": "1",
            "parent": None,
            "statistics": {"languages": {hostile: 3, "en": 2, "toolong": 1}},
            "inputs": (base.inputs[0].model_copy(update={"names": (f"s3://key:secret@host/{hostile}?sig=secret",)}),),
            "recipe": {"model_path": "/home/ada/secret/lid.176.bin", "note": "```\n# title"},
        }
    )
    fields = {name: getattr(draft, name) for name in Draft.model_fields}
    manifest = Versions(store).commit(Draft(**fields))
    written(store, manifest, tmp_path / "out", "hf")
    matter, text = front_matter(tmp_path / "out"), (tmp_path / "out" / CARD).read_text()
    assert matter["language"] == ["en"]
    assert "<script>" not in text and "secret" not in text and "/home/ada" not in text
    rows = [line for line in text.splitlines() if line.startswith("| x")]
    assert rows and all(line.replace(r"\|", "").count("|") in (4, 5) for line in rows)
    assert "````json" in text  # a fence that the recipe's own does not end


@pytest.mark.parametrize(
    ("records", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (2_500_000, "1M<n<10M"), (10**10, "n>10B")],
)
def test_sizes_are_the_hubs(records: int, category: str) -> None:
    assert size_category(records) == category


def test_the_lineage_of_a_dataset_that_grew_for_years_is_bounded() -> None:
    node = Node("web@v1", "extends", "0" * 64)
    for number in range(2, 1501):
        node = Node(f"web@v{number}", "extends", "0" * 64, origins=(node,))
    lines = list(_lineage(node))
    assert len(lines) == 9 + 2 and "And 1,491 versions further up" in lines[-1]
