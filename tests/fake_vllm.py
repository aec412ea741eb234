"""An environment with something in it that plays vLLM's server, for tests of who starts it: an interpreter that finds
a package `vllm` of its own, as that of another virtual environment does.

The server tells what it was given (arguments, environment, itself and a process that it started) and answers by
prompt and seed alone. `--fake-FAULT` among its arguments makes it fail.
"""

from __future__ import annotations

import json
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = "0.99.1"

_SERVER = """
import argparse, hashlib, json, os, re, subprocess, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("host", "model", "served-model-name", "dtype", "generation-config", "chat-template"):
    parser.add_argument("--" + name, required=True)
for name in ("port", "max-model-len", "max-num-seqs", "seed"):
    parser.add_argument("--" + name, required=True, type=int)
for name in ("disable-uvicorn-access-log", "fake-dies", "fake-hangs", "fake-same"):
    parser.add_argument("--" + name, action="store_true")
args = parser.parse_args()

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def reply(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(200 if self.path == "/health" else 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        if self.path != "/v1/chat/completions" or body["model"] != args.served_model_name:
            return self.reply(404)
        if len(prompt.split()) + body["max_tokens"] > args.max_model_len:
            words = "This model's maximum context length is %d tokens" % args.max_model_len
            return self.reply(400, json.dumps({"error": {"message": words}}).encode())
        texts = [text(prompt, body["seed"], n) for n in range(body.get("n", 1))]
        choices = [{"message": {"content": t}, "finish_reason": "stop", "index": n} for n, t in enumerate(texts)]
        usage = {"prompt_tokens": 7, "completion_tokens": 5 * len(texts)}
        self.reply(200, json.dumps({"choices": choices, "usage": usage}).encode())

def text(prompt, seed, n):
    if args.fake_same:
        return "always this"
    drawn = hashlib.sha256(f"{prompt} {seed} {n}".encode()).hexdigest()[:8]
    numbers = re.findall("[0-9]+", prompt)[:2]
    return f"By {drawn}.\\n#### {sum(map(int, numbers)) + seed % 2}"

print("loading the weights", flush=True)
if args.fake_dies:
    sys.exit("CUDA out of memory, says the fake")
child = subprocess.Popen(["sleep", "1000000"])
seen = {"pid": os.getpid(), "child": child.pid, "argv": sys.argv[1:], "environment": dict(os.environ)}
path = os.path.join(os.environ["FAKE_VLLM"], "seen.json")
with open(path + ".new", "w") as file:
    json.dump(seen, file)
os.replace(path + ".new", path)
if args.fake_hangs:
    child.wait()
ThreadingHTTPServer((args.host, args.port), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Fake:
    """`python`: the interpreter."""

    folder: Path
    python: str

    @property
    def seen(self) -> dict[str, Any]:
        """What the server was given last: pid, child (a pid), argv, environment; empty before one was started."""
        path = self.folder / "seen.json"
        return json.loads(path.read_text()) if path.exists() else {}


def fake_vllm(folder: Path) -> Fake:
    """Such an environment in a new folder."""
    package = folder / "site" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    (package / "api_server.py").write_text(_SERVER)
    about = folder / "site" / f"vllm-{VERSION}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n")
    python = folder / "python"
    setting = f'FAKE_VLLM="{folder}" PYTHONPATH="{folder / "site"}"'
    python.write_text(f'#!/bin/sh\n{setting} exec "{sys.executable}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return Fake(folder, str(python))
