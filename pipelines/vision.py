"""The vision pipeline: images, several images and video frames in, a versioned dataset of image records out.

scan -> form (rows and images to samples, each image decoded once) -> screens (sizes of images, captions) -> images of
benchmarks -> exact duplicates (by digests of images and text) -> near duplicates (by how pictures look) -> shards ->
ledger. Images are stored as they came; crops are a matter of the mixture that takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field, model_validator

from gristmill.filters.image.caption import CaptionQuality, Captions
from gristmill.filters.image.pictures import Pictures
from gristmill.filters.image.size import ImageSize
from gristmill.filters.language import LanguageFilter, deciding
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.benchmarks import ROLE, Decontamination, benchmarks_of
from gristmill.pipelines.frame.chunk_steps import Screening
from gristmill.pipelines.frame.flow import Flow, Step
from gristmill.pipelines.frame.recipe import PipelineConfig, Resolved
from gristmill.pipelines.frame.records import RecordRecipe
from gristmill.pipelines.frame.steps import ExactDuplicates, NearDuplicates
from gristmill.pipelines.settings.config import BadConfig, Run
from gristmill.stages.dedup.exact import Exact
from gristmill.stages.near.gather import Gather
from gristmill.stages.text.screen import Screen
from gristmill.stages.vision.benchmarks import Decontaminate
from gristmill.stages.vision.form import FormImages
from gristmill.stages.vision.frames import FormFrames, Video
from gristmill.stages.vision.sign import BANDS, MIN_SIMILARITY, GatherLooks, SelectPictures, SignImages
from gristmill.stages.vision.write import WriteFrames, WriteImages

PIXELS = "image_size.pixels"
IF_NONE = (
    "not one of {records} records is a sample: {reasons}. Is recipe.image.form another one, or the name of a field?"
    " Nothing was committed."
)
MOST_BYTES = 1 << 30
"""Of a chunk and one more record: a column of bytes holds twice as many."""


class VisionRecipe(RecordRecipe):
    """What decides the data. `image.form`: what a row is (caption, pair, chat); one run reads rows of one form.
    `video`: how videos become images (the extra `video`); None: a record with one is none.

    `language`, `caption`: filters of what is learned; None leaves one out. `decontaminate`: benchmarks whose images no
    record may have; None: none. `min_similarity`: the share of 64 bits of
    how pictures look in which two records agree to be near duplicates; None leaves the step out. `survivor`: measures
    by which the best of them is chosen, as in the web pipeline; records with another text are never compared where
    `image.same` is images_and_text.
    """

    form: ClassVar[Form] = "images"

    dataset: str = "vision"
    image: FormImages = FormImages()
    video: Video | None = None
    image_size: ImageSize = ImageSize()
    language: LanguageFilter | None = None
    caption: CaptionQuality | None = CaptionQuality()
    decontaminate: Decontaminate | None = None
    exact: Exact = Exact()
    min_similarity: float | None = Field(default=MIN_SIMILARITY, gt=0, le=1)
    survivor: tuple[str, ...] = (PIXELS,)
    shards: WriteImages = WriteImages()

    @property
    def flow(self) -> Flow:
        """From a row to a sample with its images, in order."""
        steps: list[Step] = [Screening(Screen((self.image_size,), Pictures), "images")]
        if self.text_filters:
            steps.append(Screening(Screen(self.text_filters, Captions), "captions"))
        if self.decontaminate is not None:
            steps.append(Decontamination(self.decontaminate))
        steps.append(ExactDuplicates(self.exact))
        if self.min_similarity is not None:
            steps.append(
                NearDuplicates(
                    sign=SignImages(self.image.same),
                    gather_signatures=GatherLooks.of(BANDS[self.image.same], self.survivor),
                    gather=Gather(signatures=True),
                    select_survivors=SelectPictures(self.min_similarity),
                )
            )
        if self.video is None:
            return Flow(self.image, tuple(steps), self.shards, IF_NONE)
        form = FormFrames.of(self.image, self.video)
        return Flow(form, tuple(steps), WriteFrames(self.shards.target_bytes), IF_NONE)

    @property
    def text_filters(self) -> tuple[Any, ...]:
        """Those of what is learned, in order."""
        return tuple(value for value in (self.language, self.caption) if value is not None)

    @model_validator(mode="after")
    def _fits_in_memory(self) -> VisionRecipe:
        if not self.survivor:
            raise ValueError(f"survivor: name at least one measure, such as {PIXELS}")
        most = self.scan.chunk_bytes + self.image.read.max_record_bytes
        if most > MOST_BYTES:
            raise ValueError(
                f"scan.chunk_bytes and image.read.max_record_bytes are {most} together: at most {MOST_BYTES}, because"
                " a worker holds the images of a chunk in memory"
            )
        if self.video is not None:
            per_record = self.video.max_bytes
            if most + self.scan.chunk_records * per_record > MOST_BYTES:
                raise ValueError(
                    f"video: a worker holds the frames of a chunk in memory, at most {MOST_BYTES} bytes of all its"
                    f" records. With video.max_bytes {per_record} set scan.chunk_records to at most"
                    f" {max(0, MOST_BYTES - most) // per_record}, now {self.scan.chunk_records}"
                )
        return self

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """With the benchmarks as sources, of which nothing goes into the version. Raises BadConfig for one that cannot
        be used."""
        resolved = super().resolve(versions, suppression)
        if self.decontaminate is None:
            return resolved
        benchmarks = benchmarks_of(versions, self.decontaminate)
        held_out = (b.ref.model_copy(update={"role": ROLE}) for b in benchmarks)
        return replace(resolved, sources=(*resolved.sources, *held_out))

    def check(self, versions: Versions) -> None:
        """Raises BadConfig for a language model that cannot be used, for videos that cannot be decoded here, and for a
        measure that no filter takes."""
        if self.video is not None:
            try:
                self.video.check()
            except ValueError as error:
                raise BadConfig(f"recipe.video: {error}") from error
        if self.language is not None:
            try:
                self.language.check()
            except (OSError, ValueError, RuntimeError) as error:
                raise BadConfig(f"recipe.language: {error}") from error
        measures = self._measures()
        if unknown := sorted({name.removeprefix("-") for name in self.survivor} - set(measures)):
            known = ", ".join(measures)
            raise BadConfig(f"recipe.survivor: no measure is called {', '.join(unknown)}; there are {known}")

    def _measures(self) -> list[str]:
        texts = Screen(self.text_filters, Captions).measures() if self.text_filters else []
        return [GatherLooks.counted, *Screen((self.image_size,), Pictures).measures(), *texts]

    def identity(self, suppression: str = "") -> dict[str, Any]:
        """Without the address of the language model: its bytes count."""
        kept = super().identity(suppression)
        if kept["language"] is not None:
            kept["language"] = deciding(kept["language"])
        return kept

    def check_base(self, base: Manifest) -> None:
        """Also raises BadConfig where other records were the same in `base`: their hashes cannot be compared."""
        super().check_base(base)
        before, now = base.recipe["image"]["same"], self.image.same
        if before != now:
            raise BadConfig(
                f"recipe.image.same: {base} has {before}, this recipe has {now}: hashes of other content cannot be"
                " compared. Take its settings, or make another dataset of all inputs"
            )

    def fixed_by(self, base: Manifest) -> Mapping[str, str]:
        """Near duplicates are ranked by measures that stand beside their signatures; what a version holds was compared
        with the benchmarks that it names."""
        fixed: dict[str, str] = {}
        if self.min_similarity is not None or base.recipe.get("min_similarity") is not None:
            fixed["survivor"] = "signatures of other settings cannot be compared"
        if self.decontaminate is not None or base.recipe.get("decontaminate") is not None:
            fixed["decontaminate"] = "what it holds was not compared with the same benchmarks"
        if self.video is not None or base.recipe.get("video") is not None:
            fixed["video"] = "its shards say otherwise of which videos images are frames"
        return fixed


class VisionConfig(PipelineConfig):
    """`conf/vision.yaml`."""

    pipeline: str = "vision"
    recipe: VisionRecipe = VisionRecipe()
    run: Run = Run()
