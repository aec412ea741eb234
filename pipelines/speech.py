"""The speech pipeline: clips, segments of long files, and what is said in them in; a versioned dataset of samples out.

scan -> cut (if asked for: long files to segments, in their pauses) -> form (rows and clips to samples of a task, each
clip decoded once) -> screens (lengths, levels, transcripts) -> exact duplicates (by digests of clips and text) -> near
duplicates (by how clips sound) -> shards -> ledger. Clips are stored as they came; log-Mel frames are a matter of the
mixture that takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar

from pydantic import Field, model_validator

from gristmill.filters.audio.clip import DEPTH, HEARD_RATE, RATE, SECONDS, ClipQuality
from gristmill.filters.audio.clips import Clips, Transcripts
from gristmill.filters.audio.transcript import SpeechRate, TranscriptQuality
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.chunk_steps import Screening
from gristmill.pipelines.frame.flow import Flow, Step
from gristmill.pipelines.frame.recipe import BuildContext, PipelineConfig
from gristmill.pipelines.frame.records import RecordRecipe
from gristmill.pipelines.frame.steps import ExactDuplicates, NearDuplicates
from gristmill.pipelines.settings.config import BadConfig, Run
from gristmill.stages.dedup.exact import Exact
from gristmill.stages.near.gather import Gather
from gristmill.stages.speech.cut import cut_inputs
from gristmill.stages.speech.form import FormSpeech
from gristmill.stages.speech.sign import BANDS, MIN_SIMILARITY, GatherSounds, SelectClips, SignClips
from gristmill.stages.speech.write import WriteClips
from gristmill.stages.text.screen import Screen

IF_NONE = (
    "not one of {records} records is a sample: {reasons}. Is recipe.audio.task another one, or the name of a field?"
    " Nothing was committed."
)
MOST_BYTES = 1 << 30
"""Of a chunk and one more record: a column of bytes holds twice as many."""


class SpeechRecipe(RecordRecipe):
    """What decides the data. `audio.task`: what a row is a sample of; one run reads rows of one task.

    `clip`, `speech_rate`, `transcript`: filters; None leaves one out. `min_similarity`: the share of 64 bits of how
    clips sound in which two records agree to be near duplicates; None leaves the step out. `survivor`: measures by
    which the best of them is chosen; records with another text are never compared where `audio.same` is
    clips_and_text.
    """

    form: ClassVar[Form] = "audio"

    dataset: str = "speech"
    audio: FormSpeech = FormSpeech()
    clip: ClipQuality = ClipQuality()
    speech_rate: SpeechRate | None = SpeechRate()
    transcript: TranscriptQuality | None = TranscriptQuality()
    exact: Exact = Exact()
    min_similarity: float | None = Field(default=MIN_SIMILARITY, gt=0, le=1)
    survivor: tuple[str, ...] = (HEARD_RATE, DEPTH, RATE, SECONDS)
    shards: WriteClips = WriteClips()

    @property
    def flow(self) -> Flow:
        """From a row to a sample with its clips, in order."""
        steps: list[Step] = [Screening(self._of_clips, "clips")]
        if self.transcript is not None:
            steps.append(Screening(Screen((self.transcript,), Transcripts), "transcripts"))
        steps.append(ExactDuplicates(self.exact))
        if self.min_similarity is not None:
            steps.append(
                NearDuplicates(
                    sign=SignClips(self.audio.same),
                    gather_signatures=GatherSounds.of(BANDS[self.audio.same], self.survivor),
                    gather=Gather(signatures=True),
                    select_survivors=SelectClips(self.min_similarity),
                )
            )
        return Flow(self.audio, tuple(steps), self.shards, IF_NONE)

    def stages(self, suppression: str = "") -> tuple[StageId, ...]:
        """Also the one that cuts, behind the scan."""
        scan, cutting = self.scan.identity(), self.audio.cutting
        rest = super().stages(suppression)[len(scan) :]
        return (*scan, *(() if cutting is None else cutting.identity()), *rest)

    def _build(self, run: BuildContext) -> Draft:
        """As of every recipe of records, which are segments where files are cut."""
        if self.audio.cutting is None:
            return super()._build(run)
        inputs, facts, machine_fates = cut_inputs(run.runner, self.audio.cutting, run.inputs)
        draft = super()._build(replace(run, inputs=inputs))
        before = (run.base.statistics if run.base else {}).get("cut", {})
        counts = {name: round(value + before.get(name, 0), 2) for name, value in asdict(facts).items()}
        statistics = {**draft.statistics, "cut": counts}
        return draft.model_copy(update={"statistics": statistics, "machine_fates": draft.machine_fates + machine_fates})

    @property
    def _of_clips(self) -> Screen[Clips]:
        rate = () if self.speech_rate is None else (self.speech_rate,)
        return Screen((self.clip, *rate), Clips)

    @model_validator(mode="after")
    def _fits_in_memory(self) -> SpeechRecipe:
        if not self.survivor:
            raise ValueError(f"survivor: name at least one measure, such as {RATE}")
        most = self.scan.chunk_bytes + self.audio.read.max_record_bytes
        if most > MOST_BYTES:
            raise ValueError(
                f"scan.chunk_bytes and audio.read.max_record_bytes are {most} together: at most {MOST_BYTES}, because"
                " a worker holds the clips of a chunk in memory"
            )
        return self

    def check(self, versions: Versions) -> None:
        """Raises BadConfig for a language model that cannot be used, and for a measure that no filter takes."""
        if self.transcript is not None:
            try:
                self.transcript.check()
            except (OSError, ValueError, RuntimeError) as error:
                raise BadConfig(f"recipe.transcript: {error}") from error
        texts = Screen((self.transcript,), Transcripts).measures() if self.transcript is not None else []
        measures = [GatherSounds.counted, *self._of_clips.measures(), *texts]
        if unknown := sorted({name.removeprefix("-") for name in self.survivor} - set(measures)):
            known = ", ".join(measures)
            raise BadConfig(f"recipe.survivor: no measure is called {', '.join(unknown)}; there are {known}")

    def identity(self, suppression: str = "") -> dict[str, Any]:
        """Without the address of the language model: its bytes count."""
        kept = super().identity(suppression)
        if kept["transcript"] is not None:
            del kept["transcript"]["model_path"]
        return kept

    def check_base(self, base: Manifest) -> None:
        """Also raises BadConfig where other records were the same in `base`, or its clips were signed otherwise: their
        hashes cannot be compared."""
        super().check_base(base)
        before, now = base.recipe["audio"]["same"], self.audio.same
        if before != now:
            raise BadConfig(
                f"recipe.audio.same: {base} has {before}, this recipe has {now}: hashes of other content cannot be"
                " compared. Take its settings, or make another dataset of all inputs"
            )

        signed = {stage.version for stage in base.stages if stage.name == SignClips.name}
        if self.min_similarity is not None and signed - {SignClips.VERSION}:
            raise BadConfig(
                f"recipe.extends: {base} was made by a release that told otherwise how clips sound: signatures of both"
                " cannot be compared. Make another dataset of all inputs, or set recipe.min_similarity=null, and near"
                " copies stay"
            )

    def fixed_by(self, base: Manifest) -> Mapping[str, str]:
        """Near duplicates are ranked by measures that stand beside their signatures."""
        if self.min_similarity is None and base.recipe.get("min_similarity") is None:
            return {}
        return {"survivor": "signatures of other settings cannot be compared"}


class SpeechConfig(PipelineConfig):
    """`conf/speech.yaml`."""

    pipeline: str = "speech"
    recipe: SpeechRecipe = SpeechRecipe()
    run: Run = Run()
