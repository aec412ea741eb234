"""Long clips: the encoder in a stream, prompts in chunks, and memory that does not grow with either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import AUDIO, NANO, enlivened, nano, words
from speech import waveform
from torch import Tensor

from gristmill.model.generate import cache as cache_module
from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.requests import Clip
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.audio import PIECE, AudioEncoder
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.plan.operations import Watch
from gristmill.model.processing.audio import log_mel_blocks
from gristmill.model.windows.media import media_inputs

pytestmark = pytest.mark.usefixtures("one_thread")
HOW = Sampling(max_tokens=1, temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    """With windows of 6 hidden states: 48 frames."""
    assert NANO.audio is not None
    torch.manual_seed(0)
    return AudioEncoder(replace(NANO.audio, window=6)).eval()


def frames(count: int) -> Tensor:
    return torch.randn(count, 80, generator=torch.Generator().manual_seed(count)) * 3 + 10


def cut(frames_FM: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    at, turn = 0, 0
    while at < len(frames_FM):
        yield frames_FM[at : at + sizes[turn % len(sizes)]]
        at, turn = at + sizes[turn % len(sizes)], turn + 1


LENGTHS = [1, 8, 47, 48, 49, 48 * PIECE - 1, 48 * PIECE, 48 * PIECE + 1, 48 * PIECE + 9, 96 * PIECE, 1000]


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("sizes", [[10_000], [1], [7, 300, 2]], ids=str)
def test_a_stream_gives_the_hidden_states_of_the_whole_clip(
    encoder: AudioEncoder, count: int, sizes: list[int]
) -> None:
    clip = frames(count)
    with torch.inference_mode():
        whole, pieces = encoder(clip[None])[0], list(encoder.stream(cut(clip, sizes)))
    assert torch.equal(torch.cat(pieces), whole)
    assert max(map(len, pieces)) <= PIECE * 6


def test_a_stream_of_nothing_and_of_other_frames_is_refused(encoder: AudioEncoder) -> None:
    with pytest.raises(ValueError, match="none empty"):
        list(encoder.stream([]))
    with pytest.raises(ValueError, match="mels=80"):
        list(encoder.stream([torch.zeros(9, 79)]))


def asked(count: int, **more: object) -> Request:
    """A clip of so many frames between words."""
    return Request("long", (*words(5, 1), *(AUDIO,) * -(-count // 8), *words(4, 2)), HOW, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [32, 128])
def test_a_prompt_in_chunks_has_the_logits_of_the_prompt_at_once(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """45 seconds, which are two windows of the encoder; pages by sixteens and all at once."""
    model, mel = nano(), frames(4500).numpy()
    media = {"mel": mel, "cu_frames": np.array([0, len(mel)], np.int32)}
    request = asked(len(mel), media=media, prompt_logprobs=0)
    with torch.inference_mode():
        logits = model(torch.tensor([request.tokens]), **media_inputs([media], model.config, "cpu")).logits[0]
    targets = torch.tensor(request.tokens[1:])[:, None]
    expected = logits.log_softmax(-1)[:-1].gather(1, targets)[:, 0]
    options = Options(4, 1024, 4, prefill_chunk_size=chunk, block_size=128 if chunk == 128 else 32)
    for most in (0, 1 << 40):
        monkeypatch.setattr(cache_module, "SCORES", most)
        (done,) = Engine(model, options).run([request])
        assert done.prompt_logprobs is not None and done.adapter == "speech"
        computed = torch.tensor([logprob for logprob, _ in done.prompt_logprobs[1:]])
        torch.testing.assert_close(computed, expected, atol=1e-5, rtol=1e-5)
        assert done.tokens == [int(logits[-1].argmax())]


def test_a_clip_that_is_read_as_it_is_computed_is_as_one_in_an_array() -> None:
    """From samples to the answer: blocks of log-Mel, of the encoder, of the prompt."""
    sound = waveform(1, 50.0)

    def blocks() -> Iterator[np.ndarray]:
        return log_mel_blocks((sound[at : at + 9_999] for at in range(0, len(sound), 9_999)), 16_000)

    mel = np.concatenate(list(blocks()))
    media = {"mel": mel, "cu_frames": np.array([0, len(mel)], np.int32)}
    requests = [asked(len(mel), media=media), asked(len(mel), clips=(Clip(len(mel), blocks),))]
    sampling = replace(HOW, max_tokens=6, logprobs=3)
    engine = Engine(enlivened(NANO, 0), Options(4, 1024, 4, 32, 32))
    array, streamed = engine.run([replace(request, sampling=sampling) for request in requests])
    assert (array.tokens, array.logprobs) == (streamed.tokens, streamed.logprobs)


@pytest.mark.parametrize("count", [799, 801])
def test_a_clip_of_other_frames_than_it_was_said_to_have_is_an_error(count: int) -> None:
    engine = Engine(nano(), Options(4, 512, 4, 32, 32))
    engine.submit(asked(800, clips=(Clip(800, lambda: [frames(count).numpy()]),)))
    with pytest.raises(ValueError, match=f"a clip of {count} frames, which was said to have 800"):
        while not engine.idle:
            engine.step()


def test_clips_and_tokens_that_do_not_match_are_refused_at_once() -> None:
    engine = Engine(nano(), Options(4, 512, 4, 32, 32))
    with pytest.raises(ValueError, match="the prompt has 100 tokens of audio, its clips make 101"):
        engine.submit(asked(800, clips=(Clip(801, lambda: []),)))
    deaf = Engine(enlivened(replace(NANO, audio=None), 0), Options(4, 512, 4, 32, 32))
    with pytest.raises(ValueError, match="the model has no audio part"):
        deaf.submit(asked(800, clips=(Clip(800, lambda: []),)))
    assert engine.idle and deaf.idle


def small() -> Multimodal:
    """One layer, and windows of the encoder so short that prompts take more memory than clips."""
    assert NANO.audio is not None
    return enlivened(
        replace(NANO, text=replace(NANO.text, num_hidden_layers=1), audio=replace(NANO.audio, window=8)), 0
    )


def peak_of(count: int) -> int:
    """Bytes that a prompt with a clip of so many frames takes at most, beside weights, caches and tables of angles."""

    def blocks() -> Iterator[np.ndarray]:
        block = frames(1000).numpy()
        return (block[: min(1000, count - at)] for at in range(0, count, 1000))

    request = asked(count, clips=(Clip(count, blocks),))
    length = -(-(len(request.tokens) + 1) // 16) * 16
    engine = Engine(small(), Options(4, length, 4, prefill_chunk_size=16, block_size=16))
    watch = Watch()
    caches = engine._cache, engine._prefill.cache
    own = watch.add(*(tensor for cache in caches for tensor in (cache.keys, cache.values)))
    engine.submit(request)
    engine.step()
    while (pending := engine._prefill.pending) and len(request.tokens) - pending[0].done > 100:
        engine.step()
    with watch:  # the last chunks see all pages
        watch.begin()
        while not engine.idle:
            engine.step()
    return watch.peak - own


def test_memory_of_a_prompt_does_not_grow_with_its_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """45 seconds and 90: 36 and 71 pages. With all scores at once it does, so this can fail."""
    monkeypatch.setattr(cache_module, "SCORES", 0)
    short, long = peak_of(4_500), peak_of(9_000)
    assert long < 1.2 * short
    monkeypatch.setattr(cache_module, "SCORES", 1 << 40)
    assert peak_of(9_000) > 2 * short
