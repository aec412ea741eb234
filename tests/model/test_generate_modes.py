"""The engine leaves every module in the mode that it was in: a trainer may generate between two steps."""

from __future__ import annotations

import pytest
import torch
from models import image_inputs, nano, prompts_of_all_kinds, text_model, words

from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.lora import LoRA
from gristmill.model.phi4.multimodal import Multimodal

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = Options(max_num_seqs=4, max_model_len=128, max_num_partial_prefills=4, prefill_chunk_size=8, block_size=16)
HOW = Sampling(max_tokens=6, ignore_eos=True)


def modes(model: Multimodal) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def partly_training() -> Multimodal:
    """Adapters and one layer in training, the rest frozen in evaluation, and the whole called training."""
    model = text_model().eval()
    model.training = True
    model.language.layers[1].train()
    for module in model.modules():
        if isinstance(module, LoRA):
            module.train()
    return model


@pytest.mark.parametrize("kind", ["train", "eval", "partly"])
def test_each_module_is_in_its_mode_after_every_step_and_the_samples_are_those_of_evaluation(kind: str) -> None:
    model = partly_training() if kind == "partly" else text_model().train(kind == "train")
    before = modes(model)
    engine = Engine(model, OPTIONS)
    request = Request("a", words(9), HOW, n=3, adapter="speech")  # whose dropout is one half
    samples = engine.submit(request)
    while not engine.idle:
        assert modes(model) == before
        engine.step()
    assert modes(model) == before
    expected = list(Engine(text_model(), OPTIONS).run([request]))
    assert [completion.tokens for completion in samples] == [
        completion.tokens for completion in sorted(expected, key=lambda completion: completion.number)
    ]


def test_images_and_clips_are_embedded_in_evaluation_and_the_modes_are_put_back() -> None:
    requests = list(prompts_of_all_kinds().values())
    expected = {completion.request.key: completion.tokens for completion in Engine(nano(), OPTIONS).run(requests)}
    model = nano.__wrapped__().train()
    before = modes(model)
    assert {
        completion.request.key: completion.tokens for completion in Engine(model, OPTIONS).run(requests)
    } == expected
    assert modes(model) == before


def test_the_modes_are_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = partly_training()
    before = modes(model)
    engine = Engine(model, OPTIONS)
    engine.submit(Request("a", words(9), HOW))

    def broken(*_: object) -> torch.Tensor:
        assert not any(module.training for module in model.modules())
        raise RuntimeError("out of order")

    monkeypatch.setattr(model.language, "head", broken)
    with pytest.raises(RuntimeError, match="out of order"):
        while not engine.idle:
            engine.step()
    assert modes(model) == before
    with pytest.raises(ValueError, match="no vision part"):
        engine.submit(Request("b", words(9), HOW, inputs=image_inputs()))
    assert modes(model) == before


def test_a_step_does_not_walk_the_model_and_sees_modes_that_changed_since(monkeypatch: pytest.MonkeyPatch) -> None:
    model = text_model().eval()
    engine = Engine(model, OPTIONS)
    request = Request("a", words(9), HOW, adapter="speech")  # whose dropout is one half
    (sample,) = engine.submit(request)
    expected = list(Engine(text_model(), OPTIONS).run([request]))[-1].tokens
    with monkeypatch.context() as patch:
        patch.setattr(Multimodal, "modules", lambda self: pytest.fail("it walks all modules"))
        engine.step()
    model.train()  # as a trainer does between two steps
    before = modes(model)
    while not engine.idle:
        engine.step()
    assert modes(model) == before and all(before.values()) and sample.tokens == expected
