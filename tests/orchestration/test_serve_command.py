"""The command `grist serve`: what it takes, and how it says what it cannot."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from gristmill.orchestration.cli.main import app
from gristmill.orchestration.cli.models import serve as cli_serve


@pytest.mark.parametrize(
    ("length", "context", "expected"),
    [
        (None, 131_072, (4096, 128, 32)),
        (None, 4096, (4096, 128, 32)),
        (None, 2048, (2048, 128, 32)),
        (None, 1000, (896, 128, 32)),
        (None, 100, (64, 64, 32)),
        (None, 20, (16, 16, 16)),
        (512, 2048, (512, 128, 32)),
        (160, 2048, (160, 32, 32)),
        (2048, 2048, (2048, 128, 32)),
    ],
)
def test_the_length_fits_the_model(length: int | None, context: int, expected: tuple[int, int, int]) -> None:
    options = cli_serve._options(16, length, context)
    assert (options.max_model_len, options.block_size, options.prefill_chunk_size) == expected


@pytest.mark.parametrize(("length", "message"), [(4096, "the model's context is 2048"), (130, "multiples of 4")])
def test_a_length_that_cannot_be_is_refused(length: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cli_serve._options(16, length, 2048)


@pytest.mark.parametrize(("old", "new"), [("--slots", "--max-num-seqs"), ("--length", "--max-model-len")])
def test_an_option_of_the_last_release_is_refused_by_its_new_name(tmp_path, old: str, new: str) -> None:
    result = CliRunner().invoke(app, ["serve", str(tmp_path), old, "8"])
    assert result.exit_code == 2 and result.output == f"error: {old} 8: this option is called {new} now\n"


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "tpu", "meta", "c\x1bpu"])
def test_a_device_that_is_not_there_is_one_line(tmp_path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has one")
    result = CliRunner().invoke(app, ["serve", str(tmp_path), "--device", device])
    assert result.exit_code == 2, result.output
    lines = result.output.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: --device ") and "there are cpu" in lines[0]
    assert lines[0].isprintable()
