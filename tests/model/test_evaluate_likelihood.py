"""Log-probabilities: those of a plain forward with all logits, whatever the passes and pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import small_tokenizer, switching_at, text_model, words

from gristmill.model.evaluate import likelihood
from gristmill.model.evaluate.likelihood import Scoring, Sizes, score, windows
from gristmill.model.processing.text import Tokenizer


def plain(model, tokens):
    """Log-probabilities [tokens - 1, vocab] of a forward of one sequence with the whole logits."""
    with torch.inference_mode():
        return model(torch.tensor([list(tokens)])).logits[0, :-1].float().log_softmax(-1)


@pytest.mark.parametrize("pass_tokens", [1, 40, 10_000])
def test_scores_are_those_of_a_plain_forward_with_all_logits(pass_tokens, monkeypatch):
    monkeypatch.setattr(likelihood, "CHUNK", 7)
    model = text_model(**switching_at(64, 3))
    scorings = [Scoring(words(n, seed=n), start) for n, start in ((30, 1), (2, 1), (17, 9), (90, 60), (17, 16))]
    for (tokens, start, _), scored in zip(scorings, score(model, scorings, pass_tokens=pass_tokens), strict=True):
        logprobs = plain(model, tokens)[start - 1 :]
        expected = logprobs.gather(1, torch.tensor(tokens[start:])[:, None])[:, 0]
        assert scored.logprobs.dtype == np.float64
        np.testing.assert_allclose(scored.logprobs, expected.numpy(), atol=2e-5)
        assert scored.greedy.tolist() == (logprobs.argmax(1) == torch.tensor(tokens[start:])).tolist()


def test_a_token_that_the_model_would_choose_is_greedy():
    model = text_model()
    tokens = list(words(8))
    for _ in range(4):
        with torch.inference_mode():
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    (scored,) = score(model, [Scoring(tokens, 8)])
    assert scored.greedy.all()


def test_a_model_in_training_is_left_in_training():
    model = text_model().train()
    score(model, [Scoring(words(5), 1)])
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("start", [0, 5])
def test_what_has_no_context_or_nothing_to_score_is_refused(start):
    with pytest.raises(ValueError, match=rf"sequence 1: 5 tokens, scored from {start}"):
        score(text_model(), [Scoring(words(5), 1), Scoring(words(5), start)])


@pytest.mark.parametrize(("length", "window"), [(1, 4), (2, 4), (4, 4), (5, 4), (6, 4), (7, 4), (100, 7), (9, 2)])
def test_every_token_but_the_first_is_scored_once_and_after_another(length, window):
    pieces = list(windows(length, window))
    assert [place for _, first, end in pieces for place in range(first, end)] == list(range(1, length))
    assert all(start == first - 1 and end - start <= window for start, first, end in pieces)


def test_a_window_of_one_token_is_refused():
    with pytest.raises(ValueError, match="window=1"):
        list(windows(3, 1))


def test_bytes_are_those_of_the_text_and_special_tokens_have_none():
    tokenizer = Tokenizer.from_bytes(small_tokenizer())
    text = "a mill grinds grain, über alles \U0001f600"
    ids = tokenizer.encode_documents([text]).ids.tolist()
    assert tokenizer.is_special(ids[-1]) and Sizes(tokenizer).of(ids) == len(text.encode())
