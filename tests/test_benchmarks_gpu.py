"""The script for a GPU runs whole on a CPU and on a bare machine, and a section that fails, hangs or dies is a row."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from gpu_sections import ROW, dies, gives, hangs, raises
from packaging.requirements import Requirement
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks is no installed package

from benchmarks import bench_train_gpu, gpu, gpu_checks, gpu_tests, layer_linears  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.gpu import Results, Section, run_all, run_section  # noqa: E402
from benchmarks.harness import Differ, Figure, Row  # noqa: E402
from benchmarks.on_device import inverse  # noqa: E402
from benchmarks.section import Card, Deadline, attempted, short_name  # noqa: E402
from benchmarks.train_arms import Arm, Rows, flops_a_token  # noqa: E402
from gristmill.model.phi4 import lora  # noqa: E402
from gristmill.model.phi4.attention import Attention  # noqa: E402
from gristmill.model.phi4.presets import PRESETS  # noqa: E402

CPU = torch.device("cpu")


# Sections, each run in a process of its own


def section(function: Callable[..., object]) -> Section:
    return Section(function.__name__, f"gpu_sections:{function.__name__}", 60, "checks_gpu", "rows")


def rows_of(function: Callable[..., object], clock: Callable[[], float] = lambda: 0.0) -> list[Row]:
    """With a clock that stands, if none is given: nothing is stopped because the machine is busy."""
    card, *rows = list(run_section(section(function), True, 60.0, clock))
    assert card == ("cpu", "the CPU")
    return [row for row in rows if isinstance(row, Row)]


def test_an_error_in_a_section_is_its_last_row_and_the_next_one_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = Results(tmp_path, tiny=True)
    run_all([section(raises), section(gives)], results, 3600.0, lambda: 0.0)
    failed, after = results.rows[section(raises)], results.rows[section(gives)]
    assert failed[0] == ROW and after == [ROW] and results.failed
    assert failed[1].figure is None and failed[1].why == "ValueError: planted in ."
    written = json.loads((tmp_path / "checks_gpu-cpu.json").read_text())
    assert [row["what"] for row in written["rows"]] == ["a row", failed[1].what, "a row"]
    assert written["rows"][0].keys() == {"what", "figure", "unit", "same"} and written["rows"][1]["failed"]
    assert "FAILED: ValueError: planted" in capfd.readouterr().out


def test_a_section_past_its_guard_is_ended_and_what_it_gave_stays() -> None:
    now = [0.0]
    given = run_section(section(hangs), True, 60.0, lambda: now[0])
    card, row = next(given), next(given)
    assert card == ("cpu", "the CPU") and isinstance(row, Row)
    now[0] = 61.0
    (stopped,) = given
    assert isinstance(stopped, Row) and stopped.failed and stopped.why == "stopped after its 60 seconds"
    with pytest.raises(ProcessLookupError):
        os.kill(int(row.same), 0)


def test_a_process_that_dies_is_a_row_with_its_exit_code() -> None:
    row, died = rows_of(dies)
    assert row == ROW and died.failed and died.why == "its process ended with exit code 7"


def test_who_ends_the_script_ends_its_section_too() -> None:
    code = (
        "import gpu_sections; from benchmarks import gpu; "
        "gpu.SECTIONS = (gpu.Section('hangs', 'gpu_sections:hangs', 60, 'checks_gpu', 'rows'),); gpu.main(['--tiny'])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    script = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert script.stdout is not None
    with script.stdout:
        row = next(line for line in script.stdout if line.startswith("  a row"))
        script.terminate()
        assert script.wait() == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(row.split()[-1]), 0)


def test_a_section_without_time_does_not_begin_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(None, tiny=False)
    run_all([section(gives)], results, 14.0, lambda: 0.0)
    (row,) = results.rows[section(gives)]
    assert row.failed and row.why == "no time left: 14 of 14 seconds" and "at most 14 s" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_machine_without_a_gpu_is_told_so() -> None:
    with pytest.raises(RuntimeError, match="torch sees no GPU here; --tiny"):
        Card.here(tiny=False)


# All of it


def closure(*roots: str) -> set[str]:
    """Names of the distributions that these need, with themselves."""
    needed, pending = set[str](), list(roots)
    while pending:
        name = pending.pop()
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if name.lower() not in needed:
            needed.add(name.lower())
            requirements = [Requirement(line) for line in lines]
            pending += [
                each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})
            ]
    return needed


def bare_site(folder: Path) -> Path:
    """A folder of packages with torch, transformers and peft, and what these need; nothing that only we do. Without
    rich, which a command of theirs needs and what we run of them does not."""
    folder.mkdir()
    for name in closure("torch", "transformers", "peft") - {"rich"}:
        distribution = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
        for top in tops:
            place = Path(str(distribution.locate_file(top)))
            if place.exists() and not (folder / top).exists() and not top.endswith(".pth"):
                (folder / top).symlink_to(place)
    return folder


def test_all_of_it_runs_tiny_by_file_with_nothing_but_torch_transformers_and_peft(tmp_path: Path) -> None:
    site, out = bare_site(tmp_path / "site"), tmp_path / "out"
    assert not {"pyarrow", "ray", "boto3", "xxhash", "rich", "gristmill"} & {place.name for place in site.iterdir()}
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-S", str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--out", str(out)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    written = {path.name: path.read_text() for path in out.iterdir()}
    assert set(written) == {"checks_gpu-cpu.json", "generate_gpu-cpu.json", "train_gpu-cpu.json"}
    for name, text in written.items():
        report = json.loads(text)
        assert report["name"] == name.removesuffix(".json") and report["data"] == "a tiny run, on the CPU"
        assert "torch" in report["details"]["packages"] and not report["machine"]["packages"].keys() & {"pyarrow"}
        assert str(ROOT) not in text and str(tmp_path) not in text
        for row in report["rows"]:
            assert row["why"] if row["figure"] is None else row["figure"]["median"] >= 0
    rows = {row["what"]: row for text in written.values() for row in json.loads(text)["rows"]}
    assert {"4 slots: ours over transformers.generate", "ours, compiled over transformers + peft"} <= rows.keys()
    assert rows["the same by arithmetic"]["figure"]["median"] == pytest.approx(1.127)
    last = done.stdout.split("on the CPU\n")[-1]
    assert all(what in last for what in rows), "the table comes last"


def test_the_command_knows_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["gpu", "--only", "speed"])
    assert "invalid choice: 'speed'" in capsys.readouterr().err


def test_every_section_of_the_script_is_there_and_named_after_what_it_writes() -> None:
    assert sum(each.seconds for each in gpu.SECTIONS[:-2]) < gpu.SECONDS
    for each in gpu.SECTIONS:
        module, _, name = each.function.partition(":")
        assert callable(getattr(sys.modules.get(module) or __import__(module, fromlist=[name]), name))
        assert each.report in ("checks_gpu", "generate_gpu", "train_gpu")


# Its parts


def test_operations_of_a_token_are_those_of_the_arithmetic() -> None:
    text = PRESETS["mini"].text
    assert flops_a_token(text, 320, Rows(2, 4096)) == pytest.approx(20.53e9, rel=1e-3)
    whole, packed = (flops_a_token(text, 0, Rows(1, 4096, shares)) for shares in ((1.0,), (0.5, 0.5)))
    assert whole - packed == pytest.approx(2.42e9 / 2, rel=0.01)


def test_a_packed_row_has_its_samples_and_no_target_at_their_beginnings() -> None:
    rows = Rows(2, 64, bench_train_gpu.SHARES)
    assert rows.lengths == [6, 20, 9, 16, 13] and rows.targets == 2 * 59
    window, other = rows.windows(100)
    assert window["cu_seqlens"].tolist() == [0, 6, 26, 35, 51, 64]
    assert (window["input_ids"] != other["input_ids"]).any() and window["input_ids"].max() < 100


def arm(name: str, losses: list[float], tokens: int = 8) -> Arm:
    return Arm(name, Rows(1, tokens), nn.Identity(), lambda: None, losses=losses)


def test_losses_that_part_or_do_not_fall_are_a_difference() -> None:
    first = arm("first", [4.0, 3.0])
    bench_train_gpu.check(arm("near", [4.01, 3.0]), [first])
    bench_train_gpu.check(arm("other rows", [9.0, 8.0], 9), [first])
    with pytest.raises(Differ, match=r"step 1: a loss of 3\.0500, first has 3\.0000"):
        bench_train_gpu.check(arm("far", [4.0, 3.05]), [first])
    with pytest.raises(Differ, match="after 1 steps"):
        bench_train_gpu.check(arm("idle", [4.0, 4.0]), [])
    with pytest.raises(Differ, match="nan"):
        bench_train_gpu.check(arm("NaN", [4.0, float("nan")]), [first])


def test_ratios_are_taken_within_rounds() -> None:
    mine, peer = arm(bench_train_gpu.OWN, []), arm(bench_train_gpu.PEFT, [])
    mine.seconds, peer.seconds = [1.0, 2.0, 1.0], [3.0, 2.0, 2.0]
    (row,) = bench_train_gpu.ratios([mine, peer])
    assert row.what == "ours over transformers + peft" and row.figure == Figure(2.0, 1.0, 3.0)
    assert inverse(row.figure, 6.0) == Figure(3.0, 2.0, 6.0), "the least of a spread stays its least"


def test_a_linear_that_adds_its_adapter_twice_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    list(layer_linears.rows(True, Deadline(0.0)))
    honest = lora._add_product
    monkeypatch.setattr(lora, "_add_product", lambda *given: honest(*given[:3], 2 * given[3]))
    with pytest.raises(Differ, match="linears with speech"):
        list(layer_linears.rows(True, Deadline(0.0)))


def test_logits_that_are_not_the_cpus_are_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, drawn = gpu_checks.lively, list[nn.Module]()

    def second_is_off(*given: object) -> object:
        model = honest(*given)  # type: ignore[arg-type]
        drawn.append(model)
        with torch.no_grad():
            model.language.norm.weight *= 1 + 1e-3 * (len(drawn) > 1)
        return model

    monkeypatch.setattr(gpu_checks, "lively", second_is_off)
    with pytest.raises(Differ, match="logits of padded rows"):
        list(gpu_checks.logits(CPU, True))


def test_a_segment_that_sees_its_neighbour_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def through(self: Attention, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    monkeypatch.setattr(Attention, "__call__", through)
    with pytest.raises(Differ, match="from that of each alone"):
        list(gpu_checks.varlen(CPU, True))


def test_another_log_probability_is_a_difference() -> None:
    bits = {("a", 0): ((1, 2), (0.5, 0.25))}
    gpu_checks.same_bits("alone", bits, dict(bits))
    with pytest.raises(Differ, match="alone: 1 of 1 completions"):
        gpu_checks.same_bits("alone", bits, {("a", 0): ((1, 2), (0.5, 0.2500001))})


def test_tests_that_need_a_gpu_are_found_by_their_mark(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "model"
    folder.mkdir(parents=True)
    (folder / "test_a.py").write_text(
        "@pytest.mark.skipif(not torch.cuda.is_available(), reason='')\ndef test_a(): ..."
    )
    (folder / "test_b.py").write_text("if torch.cuda.is_available():\n    pass")
    assert gpu_tests.files(tmp_path / "tests") == [str(Path("tests", "model", "test_a.py"))]


def test_rounds_go_on_while_there_is_time_for_another() -> None:
    now = [0.0]
    deadline = Deadline(10.0, lambda: now[0])
    seen = []
    for number in deadline.rounds(9):
        now[0] += 4.0
        seen.append(number)
    assert seen == [0, 1] and deadline.left() == 2.0
    assert list(deadline.rounds(3, 2.5)) == [] and list(deadline.rounds(3, 1.5)) == [0, 1, 2]


def test_cards_have_short_names() -> None:
    names = ("NVIDIA H100 80GB HBM3", "NVIDIA H200", "NVIDIA A100-SXM4-80GB", "Some Card")
    assert [short_name(name) for name in names] == ["h100", "h200", "a100", "some-card"]


def test_an_error_of_a_peer_is_no_failure_of_ours() -> None:
    def broken() -> Iterator[Row]:
        yield ROW
        raise RuntimeError("no\n mask")

    given = attempted("a peer", broken, peer=True)
    assert list(given) == [ROW, Row("a peer", None, "", why="RuntimeError: no mask")]
