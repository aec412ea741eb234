"""Kernels are compiled once for every copy of the repository, and signatures are the same in every process."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from minhash_texts import MIXED, sign

from gristmill.filters.signatures import compiled
from gristmill.filters.signatures.minhash import MinHash, band_hashes, warm

ROOT = Path(__file__).resolve().parents[2]
COMPILED = Path("gristmill", "filters", "signatures", "compiled.py")

HELPER = """
import hashlib, sys
from gristmill.filters.signatures import compiled, minhash
import pyarrow as pa
signed = minhash.MinHash().sign(pa.array([sys.argv[1]]))
bands = minhash.band_hashes(signed.values, 14, 8)
found = compiled.kernels()
hits = sum(sum(one.stats.cache_hits.values()) for one in found)
misses = sum(sum(one.stats.cache_misses.values()) for one in found)
print(compiled.__file__, hashlib.sha256(signed.values.tobytes() + bands.tobytes()).hexdigest(), hits, misses)
"""


TOY = """
from numba import types
SIGNATURES = {name: types.int64(types.int64) for name in ("sign", "band_hashes")}
def sign(x): return x + 1
def band_hashes(x): return x * 2
"""


def start(folder: Path, cache: Path, hash_seed: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "GRIST_CACHE": str(cache), "PYTHONHASHSEED": str(hash_seed)}
    return subprocess.Popen(
        [sys.executable, "-c", HELPER, MIXED], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )


def test_a_copy_of_the_repository_finds_the_kernels_of_another_and_signs_the_same(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        for package in ("gristmill", "filters"):  # the one has links to the other and to what is not needed here
            hidden = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, folder / package, symlinks=True, ignore=hidden)
    together = [start(tmp_path / "one", tmp_path / "cache", seed) for seed in (1, 2)]
    outputs = [process.communicate()[0].split() for process in together]
    outputs.append(start(tmp_path / "two", tmp_path / "cache", 3).communicate()[0].split())
    assert outputs[2] == [str(tmp_path / "two" / COMPILED), outputs[0][1], "2", "0"]
    assert int(outputs[0][3]) + int(outputs[1][3]) >= 2
    signed = sign([MIXED], MinHash())
    here = hashlib.sha256(signed.values.tobytes() + band_hashes(signed.values, 14, 8).tobytes()).hexdigest()
    assert {output[1] for output in outputs} == {here}
    assert not list((tmp_path / "cache").rglob("tmp*"))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Kernels that compile in no time stand in for ours, and the cache is this folder."""
    (tmp_path / "kernels.py").write_text(TOY)
    monkeypatch.setattr(compiled, "SOURCE", tmp_path / "kernels.py")
    monkeypatch.setenv("GRIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "gristmill_kernels", raising=False)
    yield tmp_path / "cache"


def load() -> tuple[int, int]:
    """What a new process would: (found in the cache, compiled)."""
    loaded = compiled.kernels.__wrapped__()
    assert [loaded.sign(20), loaded.band_hashes(20)] == [21, 40]
    hits = sum(sum(kernel.stats.cache_hits.values()) for kernel in loaded)
    return hits, len(loaded) - hits


def test_new_source_is_compiled_and_old_source_is_found_again(toy: Path) -> None:
    assert [load(), load()] == [(0, 2), (2, 0)]
    compiled.SOURCE.write_text(TOY + "# Another version.\n")
    assert [load(), load()] == [(0, 2), (2, 0)]
    compiled.SOURCE.write_text(TOY)
    assert load() == (2, 0)


def test_a_copy_that_was_changed_in_the_cache_is_put_right(toy: Path) -> None:
    load()
    next(toy.rglob("kernels.py")).write_text("raise SystemExit\n")
    assert sum(load()) == 2


def test_without_a_cache_it_compiles_and_says_so(toy: Path, caplog: pytest.LogCaptureFixture) -> None:
    toy.write_text("a file where the folder should be")
    assert load() == (0, 2)
    assert "GRIST_CACHE" in caplog.text and str(toy) in caplog.text


def test_a_damaged_cache_is_no_obstacle(toy: Path, caplog: pytest.LogCaptureFixture) -> None:
    load()
    for path in [path for path in toy.rglob("*") if path.suffix in (".nbi", ".nbc")]:
        path.write_bytes(path.read_bytes()[:20])
    assert load() == (0, 2)
    assert "GRIST_CACHE" in caplog.text and "delete" in caplog.text


def test_the_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("GRIST_CACHE", raising=False)
    assert compiled.cache_folder() == tmp_path / ".cache" / "gristmill"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert compiled.cache_folder() == tmp_path / "x" / "gristmill"
    monkeypatch.setenv("GRIST_CACHE", str(tmp_path / "g"))
    assert compiled.cache_folder() == tmp_path / "g"


def test_warm_leaves_nothing_to_compile() -> None:
    warm()
    before = compiled.kernels()
    sign(["a b c"])
    assert compiled.kernels() is before
