"""The evaluate pipeline: a model and data in, exact versions both, its answers out: judged, counted, a version too.

evaluate (one Work a piece of the data) -> tabulate (one table, scores with intervals) -> ledger -> commit. Evaluations
of two models by the same recipe on the same data are compared item by item (`stages.evaluate.compare`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import Field

from gristmill.lake.accounts.balance import check_balance, total
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.objects import ObjectRef, put_refs, read_object
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, Manifest, VersionRef
from gristmill.lake.versions.versions import Versions
from gristmill.model.evaluate.answers import Extraction
from gristmill.model.evaluate.intervals import Bootstrap
from gristmill.model.evaluate.refusals import Judge
from gristmill.model.evaluate.samples import Rules, Task
from gristmill.model.hf.shape import Shape
from gristmill.model.processing.text import MissingToken
from gristmill.pipelines.frame.assembly import bundle_receipts, funnel
from gristmill.pipelines.frame.recipe import BuildContext, PipelineConfig, Recipe, Resolved
from gristmill.pipelines.frame.sources import as_inputs, exact
from gristmill.pipelines.settings.config import BadConfig, Run
from gristmill.stages.core.shards import MergeLedger, ledger_works
from gristmill.stages.evaluate.pieces import Piece, pieces_of, tally_of
from gristmill.stages.evaluate.tabulate import Tabulate, TabulateFacts, tabulate_work
from gristmill.stages.evaluate.work import Evaluate, EvaluateFacts, Generate, Where, evaluate_works
from gristmill.stages.models.model_versions import SHAPE, TOKENIZER
from gristmill.stages.run.runner import Incomplete

EVALUATED, ON = "evaluated", "on"
"""Roles of an evaluation's sources: the model, and the data."""


class EvaluateRecipe(Recipe):
    """What decides the answers. `on`: exact versions of samples, documents or windows. `tasks`: how the samples of a
    version are judged, where not as their form says. `tokenizer`: of a model that brings none. `limit`: records of each
    version."""

    form: ClassVar[Form] = "verdicts"

    dataset: str = "eval"
    model: str = ""
    on: tuple[str, ...] = ()
    tasks: dict[str, Task] = {}
    tokenizer: str = ""
    dtype: str | None = None
    generate: Generate = Generate()
    exact: Extraction = Extraction()
    judge: Judge = Judge()
    window: int = Field(default=4096, ge=2, description="tokens in which perplexity sees a text")
    bootstrap: Bootstrap = Bootstrap()
    chunk_items: int = Field(default=256, ge=1, description="records (of windows: windows) per piece of work")

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Raises BadConfig for versions that cannot be used, or not together."""
        return self.resolve_where(versions, EvaluateRun())

    def resolve_where(self, versions: Versions, run: EvaluateRun) -> Resolved:
        """The same, to run as `run` says."""
        evaluation = Evaluation.of(self, versions, run)
        return Resolved(
            evaluation.identity, evaluation.stages, evaluation.build, sources=evaluation.refs, reproducible=False
        )


class EvaluateRun(Run):
    """How and where. `device` as torch names it; `cpus` and `gpus` of each worker that holds a model."""

    device: str = "cpu"
    cpus: float = Field(default=1, ge=0)
    gpus: float = Field(default=0, ge=0)
    max_num_seqs: int = Field(default=16, ge=4, multiple_of=4, description="answers written side by side")
    pass_tokens: int = Field(default=8192, ge=1, description="tokens scored at a time")
