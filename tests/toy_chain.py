"""The smallest chain: a version a file, each made from those before it, by the toy pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from toy_pipeline import UpperRecipe

from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.recipe import Chain, PipelineConfig, Recipe
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.run.unfinished import Outlook


class LinesRecipe(Chain):
    """A version a file, each made from those before it."""

    form: ClassVar[Form] = "documents"

    dataset: str = "lines"
    files: tuple[str, ...] = ()

    def check(self, versions: Versions) -> None:
        if missing := [file for file in self.files if not Path(file).exists()]:
            raise BadConfig(f"recipe.files: {missing[0]} is not there")

    def makes(self) -> Mapping[str, Form]:
        return {f"{self.dataset}.{Path(file).stem}": self.form for file in self.files}

    def link(self, done: Sequence[Manifest]) -> Recipe | None:
        if len(done) == len(self.files):
            return None
        file = self.files[len(done)]
        before = tuple(str(manifest) for manifest in done)
        return UpperRecipe(dataset=f"{self.dataset}.{Path(file).stem}", inputs=(file,), sources=before)


class LinesConfig(PipelineConfig):
    """A run of `lines`."""

    pipeline: str = "lines"
    recipe: LinesRecipe = LinesRecipe()

    def outlook(self, versions: Versions) -> Outlook:
        count = len(self.recipe.files)
        return Outlook((f"{count} files",), [{"files": count}])
