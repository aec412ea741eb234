"""The engine `vllm`: what a server is started with, that it ends with who started it, and what is said if it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import reasonings
from fake_vllm import VERSION, fake_vllm
from waiting import PATIENCE, until

from gristmill.lake.store.opening import open_store
from gristmill.model.processing.chat.conversation import Conversation, Turn, prompt
from gristmill.model.processing.text import Tokenizer
from gristmill.stages.generate.draw import EngineSpec, Hosts, vllm_engine
from gristmill.stages.generate.engines.compact import EngineStopped
from gristmill.stages.generate.engines.endpoint import Endpoint
from gristmill.stages.generate.engines.probe import probe
from gristmill.stages.generate.engines.protocol import Ask, Draws
from gristmill.stages.generate.engines.vllm_server import BadServer, Server, Vllm, environment, installed
from gristmill.stages.models.model_versions import load_model

DRAWS = Draws(max_tokens=8, seed=3)
FLAGS = ["--model", "m", "--served-model-name", "m", "--dtype", "float32", "--max-model-len", "100"]
FLAGS += ["--max-num-seqs", "2", "--seed", "0", "--generation-config", "vllm", "--chat-template", "t"]
DRIVER = """
import signal, sys
from pathlib import Path
from gristmill.stages.generate.engines.vllm_server import Server, Vllm
server = Server(Vllm(sys.argv[1]), sys.argv[3:], Path(sys.argv[2]))
server.wait()
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def fake(tmp_path):
    return fake_vllm(tmp_path / "environment")


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    store = open_store(str(folder / "lake"))
    reasonings.lake(store, folder)
    return store


def hosted(lake, fake, *args, **spec):
    endpoint = Endpoint(tries=1, first_pause_seconds=0, longest_pause_seconds=0, in_flight=4)
    hosts = Hosts(max_num_seqs=4, endpoint=endpoint, vllm=Vllm(fake.python, args))
    return vllm_engine(lake, EngineSpec("vllm", "base@v1", context=256, **spec), DRAWS, hosts)


def gone(*pids: int) -> bool:
    """Whether none of these runs any more."""
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
    return True


def test_it_answers_with_the_model_of_the_lake_and_ends_with_all_that_it_started(lake, fake):
    engine = hosted(lake, fake)
    try:
        assert all(finding.kept for finding in probe(engine.client, 256))
        samples = list(engine.generate([Ask("p", (0, 1, 2), "1 and 2")]))
        assert {(sample.sample, sample.failure) for sample in samples} == {(0, None), (1, None), (2, None)}
        assert engine.about == f"base@v1 on vLLM {VERSION}"
        given = fake.seen
        checkpoint = given["argv"][given["argv"].index("--model") + 1]
        assert os.path.exists(checkpoint)
    finally:
        engine.close()
    until(lambda: gone(given["pid"], given["child"]), "the end of the server and of its child")
    assert not os.path.exists(checkpoint)


def test_a_prompt_is_the_same_tokens_as_with_the_engine_of_this_project_and_weights_are_as_stored(lake, fake):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    engine = hosted(lake, fake)
    try:
        flags = dict(zip(fake.seen["argv"][::2], fake.seen["argv"][1::2], strict=False))
        folder, template = flags["--model"], Path(flags["--chat-template"]).read_text()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    finally:
        engine.close()
    assert flags["--dtype"] == "float32" and flags["--max-model-len"] == "256" and flags["--max-num-seqs"] == "4"
    assert flags["--generation-config"] == "vllm" and flags["--served-model-name"] == "base@v1"
    loaded = load_model(lake, "base@v1")
    turns = Turn("system", "Think."), Turn("user", "How many  mills,\nsay?")
    for given in (turns, turns[1:]):
        messages = [{"role": turn.role, "content": turn.content} for turn in given]
        ids = Tokenizer.from_bytes(loaded.tokenizer_json).encode([prompt(Conversation(given))]).ids.tolist()
        text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    with torch.no_grad():
        tokens = torch.tensor([ids])
        torch.testing.assert_close(model(tokens).logits, loaded.model(tokens).logits, rtol=1e-4, atol=1e-4)


def test_a_dtype_is_that_of_the_file_and_of_the_flag(lake, fake):
    hosted(lake, fake, dtype="bfloat16").close()
    argv = fake.seen["argv"]
    assert argv[argv.index("--dtype") + 1] == "bfloat16"


def test_no_secret_and_no_python_path_goes_along_and_gpus_do(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("VLLM_API_KEY", "sk-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sk-secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert "PYTHONPATH" in os.environ and "PYTHONPATH" not in environment()
    server = Server(Vllm(fake.python), FLAGS, tmp_path)
    try:
        server.wait()
        given = fake.seen["environment"]
    finally:
        server.close()
    assert "sk-secret" not in str(given) and given["PYTHONPATH"] == str(fake.folder / "site")
    assert given["CUDA_VISIBLE_DEVICES"] == "3" and given["HF_HUB_OFFLINE"] == "1"


def test_one_that_dies_at_its_start_says_what_it_said_last(lake, fake):
    with pytest.raises(BadServer, match=r"ended at its start with exit code 1.*\n.*weights\n.*out of memory, says"):
        hosted(lake, fake, "--fake-dies")


def test_one_that_is_not_ready_in_time_is_ended(fake, tmp_path):
    server = Server(Vllm(fake.python, ("--fake-hangs",), start_seconds=1e-9), FLAGS, tmp_path)
    try:
        until(lambda: fake.seen, "its start")
        with pytest.raises(BadServer, match=r"not ready after start_seconds=1e-09.*\n.*loading the weights"):
            server.wait()
    finally:
        server.close()
    until(lambda: gone(fake.seen["pid"], fake.seen["child"]), "the end of the server and of its child")


def test_one_that_dies_later_stops_the_engine_with_its_last_words(lake, fake):
    engine = hosted(lake, fake)
    try:
        os.kill(fake.seen["pid"], signal.SIGKILL)
        until(lambda: not engine._server.alive, "its end")
        with pytest.raises(EngineStopped, match=r"vLLM ended.*\nloading the weights"):
            list(engine.generate([Ask("p", (0,), "1 and 2")]))
        until(lambda: gone(fake.seen["child"]), "the end of the server's child")
    finally:
        engine.close()


@pytest.mark.parametrize("whose", ["worker", "keeper"])
def test_a_kill_of_who_started_it_ends_it(fake, tmp_path, whose):
    worker = subprocess.Popen(
        [sys.executable, "-c", DRIVER, fake.python, str(tmp_path), *FLAGS], stdout=subprocess.PIPE, text=True
    )
    try:
        assert worker.stdout.readline() == "ready\n"
        given = fake.seen
        (keeper,) = psutil.Process(worker.pid).children()
        os.kill(worker.pid if whose == "worker" else keeper.pid, signal.SIGKILL)
        server = [given["pid"]] if whose == "keeper" else [given["pid"], given["child"]]
        until(lambda: gone(keeper.pid, *server), "the end of the server")
    finally:
        worker.kill()
        worker.wait(PATIENCE)
        if whose == "keeper" and psutil.pid_exists(given["child"]):
            os.kill(given["child"], signal.SIGKILL)  # a real server's children watch it themselves


def test_an_interpreter_without_vllm_is_refused(fake, tmp_path):
    assert installed(fake.python) == VERSION
    with pytest.raises(BadServer, match=r"has no vllm \(.*No package metadata.*vllm.*-m pip install vllm"):
        installed(sys.executable)
    with pytest.raises(BadServer, match="python is empty"):
        installed("")
    with pytest.raises(BadServer, match="No such file"):
        installed(str(tmp_path / "python"))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"python": "python3"}, "an absolute path"),
        ({"start_seconds": 0}, "above 0"),
        ({"args": ("--model=other",)}, "--model=other: it is set by recipe.engine"),
        ({"args": ("--max_model_len", "9")}, "it is set by recipe.engine"),
        ({"args": ("--quantization", "fp8")}, "it would change what is drawn"),
        ({"args": ("--quant=fp8",)}, "it would change what is drawn"),
        ({"args": ("--hf-overrides.rope_theta", "1")}, "it would change what is drawn"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        Vllm(**settings)


def test_how_it_is_hosted_may_be_said():
    args = (
        "--tensor-parallel-size",
        "2",
        "--gpu-memory-utilization=0.8",
        "--enforce-eager",
        "--max-num-batched-tokens=9",
    )
    assert replace(Vllm(), args=args).args == args
