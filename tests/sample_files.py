"""One small sample that tests of the generator read, and must not write to."""

from pathlib import Path

import pytest

from gristmill.synth.sample import write_sample

PAGES = 120


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    directory = tmp_path_factory.mktemp("sample")
    write_sample(directory, pages=PAGES, seed=3)
    return directory
