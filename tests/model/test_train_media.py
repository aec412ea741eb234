"""Windows with pictures and clips: pixels by formula, losses those of each sample alone, ranks without a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_windows import CROP, PATCH, Sample, packed, sample, samples_of_all_kinds, write_media_windows
from models import AUDIO, NANO, enlivened, text_model
from ranks import in_ranks
from safetensors.torch import load_file, save_file
from torch import Tensor
from train_windows import stage

from gristmill.model.phi4 import audio
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, tensors_of
from gristmill.model.processing.image import patch_masks, pixels_of
from gristmill.model.train.loop import Trainer
from gristmill.model.train.objective import Objective, collate
from gristmill.model.train.optim import Optim
from gristmill.model.train.ranks import Ranks
from gristmill.model.train.settings import Source

pytestmark = pytest.mark.usefixtures("one_thread")


# Pixels.


def shrunk(picture_HWC: np.ndarray, crop: int) -> np.ndarray:
    """Bicubic by hand, for sides of whole crops: the middle of an odd number of pixels, four taps of an even one."""
    for axis in (0, 1):
        factor = picture_HWC.shape[axis] // crop
        if factor % 2:
            taps, first = [1.0], (factor - 1) // 2
        else:
            taps, first = [-0.09375, 0.59375, 0.59375, -0.09375], factor // 2 - 2
        last = picture_HWC.shape[axis] - 1
        places = [np.clip(factor * np.arange(crop) + first + tap, 0, last) for tap in range(len(taps))]
        picture_HWC = sum(w * np.take(picture_HWC, at, axis) for w, at in zip(taps, places, strict=True))
    return picture_HWC


@pytest.mark.parametrize("size", [(64, 64), (100, 64), (128, 192), (256, 70), (63, 320)])
def test_pixels_and_the_global_view_are_by_the_formula(size: tuple[int, int]) -> None:
    ((_, tiles),) = sample(3, pictures=[size]).pictures
    rows, columns = -(-size[0] // CROP), -(-size[1] // CROP)
    picture = np.concatenate(
        [np.concatenate(list(tiles[r * columns : (r + 1) * columns]), axis=1) for r in range(rows)], axis=0
    )
    floats = (picture.astype(np.float64) - 127.5) / 127.5
    assert (floats[size[0] :] == 1).all() and (floats[:, size[1] :] == 1).all()
    result = pixels_of(torch.from_numpy(tiles), [size])
    assert result.dtype == torch.float32 and result.shape == (1 + len(tiles), 3, CROP, CROP)
    crops = (torch.from_numpy(tiles).float() - 127.5) / 127.5
    assert torch.equal(result[1:], crops.permute(0, 3, 1, 2))
    np.testing.assert_allclose(result[0].permute(1, 2, 0).numpy(), shrunk(floats, CROP), atol=1e-6)


def test_pixels_of_several_images_are_those_of_each() -> None:
    pictures = [picture for each in samples_of_all_kinds() for picture in each.pictures]
    sizes = [size for size, _ in pictures]
    together = pixels_of(torch.from_numpy(np.concatenate([tiles for _, tiles in pictures])), sizes)
    alone = [pixels_of(torch.from_numpy(tiles), [size]) for size, tiles in pictures]
    assert torch.equal(together, torch.cat(alone))
    masks = patch_masks(sizes, CROP, PATCH)
    assert len(masks) == len(together)
    assert torch.equal(masks, torch.cat([patch_masks([size], CROP, PATCH) for size in sizes]))


def test_a_patch_is_padding_where_all_of_it_lies_beyond_the_image() -> None:
    glob, above, below = patch_masks([(100, 33)], CROP, PATCH)
    assert glob.all()
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:, :5] = True  # 33 pixels: the fifth patch has one of them
    assert torch.equal(above, expected)
    expected[5:] = False  # 36 of the second crop's rows
    assert torch.equal(below, expected)
    assert patch_masks([(128, 64)], CROP, PATCH).all()


# Losses.


def alone(model: Multimodal, each: Sample) -> Tensor:
    """The sum of a sample's losses from the model's own forward, inputs in the reference's form: padded, by image."""
    inputs: dict[str, Tensor] = {}
    if each.pictures:
        most = 1 + max(len(tiles) for _, tiles in each.pictures)
        values, masks = torch.zeros(len(each.pictures), most, 3, CROP, CROP), torch.ones(len(each.pictures), most, 8, 8)
        for number, (size, tiles) in enumerate(each.pictures):
            values[number, : 1 + len(tiles)] = pixels_of(torch.from_numpy(tiles), [size])
            masks[number, : 1 + len(tiles)] = patch_masks([size], CROP, PATCH)
        sizes = [[-(-side // CROP) * CROP for side in size] for size, _ in each.pictures]
        inputs = {"image_pixel_values": values, "image_attention_mask": masks, "image_sizes": torch.tensor(sizes)}
    if each.clips:
        longest = max(len(clip) for clip in each.clips)
        frames = torch.zeros(len(each.clips), longest, 80)
        real = torch.zeros(len(each.clips), longest, dtype=torch.bool)
        for number, clip in enumerate(each.clips):
            frames[number, : len(clip)], real[number, : len(clip)] = torch.from_numpy(clip), True
        inputs |= {"audio_input_features": frames, "audio_attention_mask": real}
    row = torch.tensor([each.ids])
    logprobs = model(row, **inputs).logits[0, :-1].log_softmax(-1)
    return -logprobs.gather(1, row[0, 1:, None])[:, 0][torch.tensor(each.learn)[1:]].sum()


def test_the_loss_of_a_packed_batch_is_that_of_each_sample_alone() -> None:
    model, samples = enlivened(NANO, 2), samples_of_all_kinds()
    windows = [packed(samples[:3]), packed([samples[4]]), packed([samples[3], *samples[5:]])]
    batch = collate(windows, NANO)
    loss, count = Objective(model)(batch)
    expected = torch.stack([alone(model, each) for each in samples]).sum()
    assert int(count) == sum(sum(each.learn[1:]) for each in samples) > 20
    torch.testing.assert_close(loss, expected, atol=1e-3, rtol=1e-5)
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients, others = (torch.autograd.grad(total, list(wanted.values())) for total in (loss, expected))
    for name, gradient, other in zip(wanted, gradients, others, strict=True):
        assert (gradient - other).norm() <= 1e-4 * other.norm() + 1e-4, name


def test_how_windows_with_media_are_dealt_out_changes_no_sum() -> None:
    objective, samples = Objective(enlivened(NANO, 2)), samples_of_all_kinds()
    windows = [packed(samples[:3]), packed([samples[4]]), packed([samples[3], *samples[5:]])]
    with torch.no_grad():
        loss, _ = objective(collate(windows, NANO))
        apart = torch.stack([objective(collate([window], NANO))[0] for window in windows])
    torch.testing.assert_close(loss, apart.sum(), atol=1e-3, rtol=1e-6)


def test_media_are_stored_as_they_are_and_floats_are_made_of_them() -> None:
    window = packed([sample(1, pictures=[(64, 70)], clips=[24])])
    half = {**window, "mel": window["mel"].astype(np.float16)}
    inputs = collate([half], NANO).inputs
    assert window["tiles"].dtype == np.uint8 and inputs["image_pixel_values"].dtype == torch.float32
    assert inputs["audio_input_features"].dtype == torch.float32
    assert torch.equal(inputs["audio_input_features"], torch.from_numpy(half["mel"]).float())
    assert inputs["audio_frames"].tolist() == [24]
    assert collate([window], NANO, "meta").inputs["image_pixel_values"].is_meta  # made where it is used


def test_a_short_clip_is_not_padded_to_a_long_one() -> None:
    model, shapes = enlivened(NANO, 2), list[tuple[int, int]]()
    model.audio_encoder.register_forward_pre_hook(lambda _module, given: shapes.append(tuple(given[0].shape[:2])))
    window = packed([sample(1, clips=[900, 40, 800]), sample(2, clips=[35, 30, 5])])
    Objective(model)(collate([window], NANO))
    assert shapes == [(2, 900), (3, 40), (1, 5)]
    assert audio.groups([3, 4, 4]) == [([1, 2, 0], 4)] and audio.groups([]) == []
    assert audio.groups([3, 4, 4, 20, 3], 11) == [([3], 20), ([1, 2], 4), ([0, 4], 3)]


def test_many_short_clips_go_through_the_encoder_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a convolution takes of memory then does not grow with the clips of a window."""
    model, shapes = enlivened(NANO, 2), list[tuple[int, int]]()
    window = packed([sample(number, clips=[40, 40]) for number in range(3)])
    together = Objective(model)(collate([window], NANO))[0]
    most, groups = list[int](), audio.groups
    monkeypatch.setattr(audio, "groups", lambda lengths, frames: (most.append(frames), groups(lengths, 80))[1])
    model.audio_encoder.register_forward_pre_hook(lambda _module, given: shapes.append(tuple(given[0].shape[:2])))
    torch.testing.assert_close(Objective(model)(collate([window], NANO))[0], together)
    assert shapes == [(2, 40)] * 3 and most == [16_000], "as many as four windows of a long clip have"


@pytest.mark.parametrize(("frames", "shape"), [([3, 4], (8, 80)), ([8, 0], (8, 80)), ([8], (1, 8, 80))])
def test_frames_that_are_not_those_of_the_clips_are_refused(frames: list[int], shape: tuple[int, ...]) -> None:
    model = enlivened(NANO, 2)
    with pytest.raises(ValueError, match=r"audio_frames \[.*the frames of each clip"):
        model.embed(torch.tensor([[AUDIO]]), audio_input_features=torch.zeros(shape), audio_frames=torch.tensor(frames))


def changed(**arrays: Any) -> dict[str, np.ndarray]:
    """A window with a picture and a clip, and other arrays in it; None: without."""
    window = {**packed([sample(1, pictures=[(64, 70)], clips=[24])]), **arrays}
    return {name: array for name, array in window.items() if array is not None}


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (changed(image_sizes=None), "a window has tiles alone; tiles and image_sizes come together"),
        (changed(cu_frames=None), "a window has mel alone; mel and cu_frames come together"),
        (changed(image_sizes=np.array([[64, 64]])), r"2 tiles, its image_sizes \[\(64, 64\)\] are of 1"),
        (changed(image_sizes=np.array([[0, 64]])), "an image of 0x64 pixels: allowed are 1 and more"),
        (changed(tiles=np.zeros((2, 32, 32, 3), np.uint8)), r"tiles are uint8 \[2, 32, 32, 3\]: the model takes uint8"),
        (changed(tiles=np.zeros((2, 64, 64, 3), np.float32)), "tiles are float32"),
        (changed(mel=np.zeros((24, 128), np.float32)), r"mel is float32 \[24, 128\]: the model takes floats \[frames"),
        (changed(mel=np.zeros((24, 80), np.int16)), "mel is int16"),
        (changed(cu_frames=np.array([0, 20])), r"cu_frames \[0, 20\]: needed is 0, rising to the 24 frames"),
        (changed(cu_frames=np.array([0, 24, 24])), r"cu_frames \[0, 24, 24\]: needed is 0, rising"),
    ],
)
def test_media_that_do_not_fit_are_refused(window: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collate([window], NANO)


def test_media_without_a_model_for_them_are_refused() -> None:
    with pytest.raises(ValueError, match="a window has tiles, and no config of a model with vision is given"):
        collate([packed([sample(1, pictures=[(64, 64)])])])
    with pytest.raises(ValueError, match="a window has mel, and no config of a model with audio is given"):
        collate([packed([sample(1, clips=[20])])], text_model().config)
    empty = {"tiles": np.zeros((0, 64, 64, 3), np.uint8), "image_sizes": np.zeros((0, 2), np.int32)}
    assert collate([{**packed([sample(1)]), **empty}]).inputs == {}


# A rank without a picture.


def trained(source: Source, folder: Path, ranks: Ranks, parts: frozenset[Part]) -> None:
    """Trains parts of the picture's side for 6 steps of 2 windows, and writes them: a file a rank."""
    model, seen = enlivened(NANO, 2), list[int]()
    objective = Objective(model)
    objective.register_forward_pre_hook(lambda _module, batch: seen.append(len(batch[0].inputs)))
    fields = {"trainable": parts, "steps": 6, "batch": 2, "optim": Optim(lr=2e-3)}
    Trainer(stage(**fields), model, objective, source, config=NANO, base="seed 2", ranks=ranks).train()
    folder.mkdir(exist_ok=True)
    tensors = {name: tensor for part in parts for name, tensor in tensors_of(model, part).items()}
    save_file({**tensors, "seen": torch.tensor(seen)}, folder / f"rank-{ranks.rank}")


PARTS = [{Part.LORA_VISION}, {Part.VISION_ENCODER, Part.VISION_PROJECTOR}]


@pytest.mark.parametrize("parts", PARTS, ids=["adapter", "encoder"])
def test_a_rank_without_a_picture_trains_as_one_process_with_all_windows(tmp_path: Path, parts: set[Part]) -> None:
    source, work = write_media_windows(tmp_path / "data"), frozenset(parts)
    trained(source, tmp_path / "alone", Ranks(), work)
    assert in_ranks(tmp_path, 2, lambda ranks: trained(source, tmp_path / "two", ranks, work)) == [0, 0]
    single, first, second = (load_file(tmp_path / name) for name in ("alone/rank-0", "two/rank-0", "two/rank-1"))
    pictures = [(bool(a), bool(b)) for a, b in zip(first.pop("seen"), second.pop("seen"), strict=True)]
    assert any(a != b for a, b in pictures), "a step with a picture on one rank alone"
    assert (False, False) in pictures, "and one without any"
    start = enlivened(NANO, 2).state_dict()
    del single["seen"]
    for name, tensor in single.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], tensor, atol=2e-6, rtol=0), name
    moved = [name for name, tensor in single.items() if not torch.equal(tensor, start[name])]
    assert len(moved) > len(single) // 2
