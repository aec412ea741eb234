"""The whole model against transformers and peft: logits within 1e-4 in float32, greedy tokens the same.

Tiny random models of the same architecture, whose original context is 64 tokens, so that short rows switch LongRoPE.
Every case runs without an adapter, with the vision one and with the speech one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import hf
import numpy as np
import pytest
import torch
from PIL import Image
from speech import waveform
from torch import Tensor
from transformers import Phi4MultimodalImageProcessor
from transformers.models.phi4_multimodal.feature_extraction_phi4_multimodal import Phi4MultimodalFeatureExtractor
from vision import pixels

from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.hf.checkpoint import load_hf
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.processing.audio import log_mel
from gristmill.model.processing.image import crops
from gristmill.model.windows.media import media_inputs

CROP, SIDE = 448, 32


class Pair(NamedTuple):
    model: Multimodal
    reference: Any
    folder: Path


pytestmark = pytest.mark.usefixtures("one_thread")


def _pair(kind: str, folder: Path) -> Pair:
    reference = hf.tiny_text() if kind == "text" else hf.tiny_multimodal()
    for name in ("vision", "speech"):
        reference.load_adapter(str(folder / f"{name}-lora"), adapter_name=name)
    return Pair(load_hf(folder), reference.eval(), folder)


@pytest.fixture(scope="module")
def text(written_text: Path) -> Pair:
    return _pair("text", written_text)


@pytest.fixture(scope="module")
def whole(written_multimodal: Path) -> Pair:
    return _pair("multimodal", written_multimodal)


def furthest(pair: Pair, given: dict[str, Tensor], adapter: str | None) -> float:
    """The largest difference of logits, of real tokens only."""
    if adapter is None:
        pair.reference.disable_adapters()
    else:
        pair.reference.enable_adapters()
        pair.reference.set_adapter(adapter)
    with torch.no_grad():
        logits = pair.model(**given, adapter=adapter).logits
        apart = (logits - pair.reference(**given).logits).abs().amax(-1)
    real = given.get("attention_mask", torch.ones_like(given["input_ids"])).bool()
    return float(apart[real].max())


def words(*shape: int) -> Tensor:
    return torch.randint(0, 280, shape)


def images(*grids: tuple[int, int, int, int]) -> tuple[dict[str, Tensor], list[int]]:
    """Random images of (rows, columns of crops, patches missing below, missing right), and their numbers of tokens."""
    most = max(rows * columns for rows, columns, _, _ in grids)
    pixels = torch.zeros(len(grids), most + 1, 3, CROP, CROP)
    mask = torch.ones(len(grids), most + 1, SIDE, SIDE)
    sizes, counts = [], []
    for i, (rows, columns, below, right) in enumerate(grids):
        pixels[i, : rows * columns + 1] = torch.randn(rows * columns + 1, 3, CROP, CROP)
        stitched = torch.ones(SIDE * rows, SIDE * columns)
        stitched[SIDE * rows - below :] = 0
        stitched[:, SIDE * columns - right :] = 0
        crops = stitched.view(rows, SIDE, columns, SIDE).transpose(1, 2).reshape(-1, SIDE, SIDE)
        mask[i, 1 : rows * columns + 1] = crops
        high, wide = -(-(SIDE * rows - below) // 2), -(-(SIDE * columns - right) // 2)
        sizes.append([CROP * rows, CROP * columns])
        counts.append(high * (wide + 1) + 1 + 16 * 17)
    return {
        "image_pixel_values": pixels,
        "image_sizes": torch.tensor(sizes),
        "image_attention_mask": mask,
    }, counts


def clips(*frames: int) -> tuple[dict[str, Tensor], list[int]]:
    """Random log-Mel features of clips that are equally long, and their numbers of tokens."""
    counts = [-(-n // 8) for n in frames]
    return {
        "audio_input_features": torch.randn(len(frames), frames[0], 80) * 3 + 10,
        "audio_embed_sizes": torch.tensor(counts),
    }, counts


def row(*parts: Tensor | tuple[int, int]) -> Tensor:
    """One row of words and (token, how often)."""
    return torch.cat([part if isinstance(part, Tensor) else torch.full((part[1],), part[0]) for part in parts])[None]


@pytest.mark.parametrize("adapter", [None, "vision", "speech"])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_text_on_both_sides_of_the_switch(text: Pair, length: int, adapter: str | None) -> None:
    assert furthest(text, {"input_ids": words(2, length)}, adapter) < 1e-4


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_other_lengths(text: Pair, side: str) -> None:
    mask = torch.ones(3, 50, dtype=torch.int64)
    for i, missing in enumerate((0, 7, 30)):
        mask[i, slice(missing) if side == "left" else slice(50 - missing, None)] = 0
    assert furthest(text, {"input_ids": words(3, 50), "attention_mask": mask}, "speech") < 1e-4


@pytest.mark.parametrize("adapter", [None, "vision", "speech"])
def test_images_of_several_grids_and_paddings(whole: Pair, adapter: str | None) -> None:
    given, counts = images((1, 1, 0, 0), (2, 1, 13, 5), (1, 3, 0, 20))
    rows = [row(words(4), (hf.IMAGE, n), words(3)) for n in counts]
    width = max(ids_1L.shape[1] for ids_1L in rows)
    ids = torch.cat(
        [torch.cat([torch.zeros(1, width - ids_1L.shape[1], dtype=torch.int64), ids_1L], 1) for ids_1L in rows]
    )
    mask = torch.tensor([[0] * (width - ids_1L.shape[1]) + [1] * ids_1L.shape[1] for ids_1L in rows])
    assert furthest(whole, {"input_ids": ids, "attention_mask": mask, **given}, adapter) < 1e-4


@pytest.mark.parametrize("adapter", [None, "vision", "speech"])
@pytest.mark.parametrize("frames", [98, 401, 4500])
def test_audio_of_a_second_of_four_and_of_forty_five(whole: Pair, frames: int, adapter: str | None) -> None:
    given, (count,) = clips(frames)
    ids = row(words(4), (hf.AUDIO, count), words(3))
    assert furthest(whole, {"input_ids": ids, **given}, adapter) < 1e-4


@pytest.mark.parametrize("adapter", [None, "vision", "speech"])
def test_images_and_audio_in_one_row(whole: Pair, adapter: str | None) -> None:
    seen, (first, second) = images((1, 1, 0, 9), (1, 2, 0, 0))
    heard, (first_clip, second_clip) = clips(160, 160)
    ids = row(
        words(2),
        (hf.AUDIO, first_clip),
        (hf.IMAGE, first),
        words(3),
        (hf.IMAGE, second),
        (hf.AUDIO, second_clip),
        words(5),
    )
    assert furthest(whole, {"input_ids": ids, **seen, **heard}, adapter) < 1e-4


def test_auto_is_the_adapter_of_what_a_row_has(whole: Pair) -> None:
    seen, (image,) = images((1, 1, 0, 0))
    heard, (clip,) = clips(98)
    cases = {
        None: ({}, row(words(9))),
        "vision": (seen, row(words(3), (hf.IMAGE, image), words(3))),
        "speech": (heard, row(words(3), (hf.AUDIO, clip), words(3))),
    }
    with torch.no_grad():
        equal = {
            name: torch.equal(whole.model(ids, **given).logits, whole.model(ids, **given, adapter=name).logits)
            for name, (given, ids) in cases.items()
        }
        both = row(words(1), (hf.IMAGE, image), (hf.AUDIO, clip), words(2))
        auto = whole.model(both, **seen, **heard).logits
        equal["both"] = torch.equal(auto, whole.model(both, **seen, **heard, adapter="vision").logits)
    assert equal == {None: True, "vision": True, "speech": True, "both": True}


def greedy(
    pair: Pair,
    ids: Tensor,
    given: dict[str, Tensor],
    count: int,
    adapter: str | None,
    media: dict[str, np.ndarray] | None = None,
) -> list[int]:
    sampling = Sampling(max_tokens=count, temperature=0.0, ignore_eos=True)
    engine = Engine(
        pair.model,
        Options(max_num_seqs=4, max_model_len=1024, max_num_partial_prefills=4, prefill_chunk_size=32, block_size=64),
    )
    request = Request("greedy", tuple(ids[0].tolist()), sampling, adapter=adapter, inputs=given, media=media)
    (completion,) = engine.run([request])
    return completion.tokens


def reference_greedy(pair: Pair, ids: Tensor, given: dict[str, Tensor], count: int) -> list[int]:
    """Without a cache: with it, `Phi4MultimodalForCausalLM.generate` often differs from its own uncached output."""
    output = pair.reference.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), **given, max_new_tokens=count, do_sample=False,
        eos_token_id=-1, use_cache=False,
    )  # fmt: skip
    return [int(token) for token in output[0, ids.shape[1] :]]


@pytest.mark.parametrize("length", [5, 40, 64, 90])
def test_the_engine_writes_what_generate_writes_across_the_switch(text: Pair, length: int) -> None:
    ids = words(1, length)
    text.reference.disable_adapters()
    assert greedy(text, ids, {}, 40, None) == reference_greedy(text, ids, {}, 40)


@pytest.mark.parametrize(("kind", "adapter"), [("image", "vision"), ("audio", "speech"), ("both", "vision")])
def test_the_engine_writes_what_generate_writes_of_images_and_audio(whole: Pair, kind: str, adapter: str) -> None:
    given: dict[str, Tensor] = {}
    parts: list[Tensor | tuple[int, int]] = [words(3)]
    if kind != "audio":
        seen, (count,) = images((1, 1, 0, 4))
        given, parts = given | seen, [*parts, (hf.IMAGE, count)]
    if kind != "image":
        heard, (count,) = clips(98)
        given, parts = given | heard, [*parts, (hf.AUDIO, count)]
    ids = row(*parts, words(2))
    whole.reference.enable_adapters()
    whole.reference.set_adapter(adapter)
    assert greedy(whole, ids, given, 24, "auto") == reference_greedy(whole, ids, given, 24)


def test_the_engine_writes_of_a_picture_what_generate_writes(whole: Pair) -> None:
    """Shown as a request shows it: crops as bytes; the reference is given its own processor's pixels of the picture."""
    picture = pixels(1, 300, 400)
    cropped = crops(picture, max_crops=1)
    seen = Phi4MultimodalImageProcessor(dynamic_hd=1)(Image.fromarray(picture), return_tensors="pt")
    given = {name: seen[name] for name in ("image_pixel_values", "image_sizes", "image_attention_mask")}
    ids = row(words(3), (hf.IMAGE, int(seen["num_img_tokens"][0])), words(2))
    media = {"tiles": cropped.tiles, "image_sizes": np.array([cropped.image_size], np.int32)}
    whole.reference.enable_adapters()
    whole.reference.set_adapter("vision")
    assert greedy(whole, ids, {}, 24, "auto", media) == reference_greedy(whole, ids, given, 24)


@pytest.mark.parametrize("with_picture", [False, True])
def test_the_engine_writes_of_a_clip_what_generate_writes(whole: Pair, with_picture: bool) -> None:
    """Heard as a request lets it be heard: log-Mel of samples; the reference is given its own extractor's features, and
    of a spoken question about a picture its own processor's pixels. Logits of the prompt are the same within 1e-4."""
    extracted = Phi4MultimodalFeatureExtractor()(waveform(1, 3.1), sampling_rate=16_000, return_tensors="pt")
    mel = log_mel(waveform(1, 3.1), 16_000)
    given: dict[str, Tensor] = {name: extracted[name] for name in ("audio_input_features", "audio_embed_sizes")}
    media = {"mel": mel, "cu_frames": np.array([0, len(mel)], np.int32)}
    parts: list[Tensor | tuple[int, int]] = [words(3), (hf.AUDIO, int(given["audio_embed_sizes"][0])), words(2)]
    if with_picture:
        cropped = crops(pixels(1, 300, 400), max_crops=1)
        seen = Phi4MultimodalImageProcessor(dynamic_hd=1)(Image.fromarray(pixels(1, 300, 400)), return_tensors="pt")
        given |= {name: seen[name] for name in ("image_pixel_values", "image_sizes", "image_attention_mask")}
        media |= {"tiles": cropped.tiles, "image_sizes": np.array([cropped.image_size], np.int32)}
        parts.insert(1, (hf.IMAGE, int(seen["num_img_tokens"][0])))
    ids = row(*parts)
    whole.reference.enable_adapters()
    whole.reference.set_adapter("vision" if with_picture else "speech")
    with torch.no_grad():
        logits = whole.model(ids, **media_inputs([media], whole.model.config, "cpu")).logits
        assert float((logits - whole.reference(ids, **given).logits).abs().max()) < 1e-4
    count = 8 if with_picture else 24  # the reference encodes the picture for each token
    assert greedy(whole, ids, {}, count, "auto", media) == reference_greedy(whole, ids, given, count)
