"""An export on the hub: a server that speaks its protocol stands in for it, and sees every byte that is sent."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mixtures
import pytest
from typer.testing import CliRunner

from gristmill.lake.store.opening import open_store
from gristmill.orchestration import hub
from gristmill.orchestration.cli.main import app

TOKEN = "hf_" + "s" * 34


class Hub(ThreadingHTTPServer):
    """`files`: what a commit added, by path; `asked`: (method, path, body, headers) of every request; `refuses`: with
    403."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.files: dict[str, bytes] = {}
        self.deleted: list[str] = []
        self.asked: list[tuple[str, str, Any, dict[str, str]]] = []
        self.refuses = False

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Asked(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def answer(self, data: Any, status: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.asked.append(("GET", self.path, None, dict(self.headers)))
        if self.path.endswith("/revision/main") or "/api/datasets/" in self.path:
            there = [{"rfilename": "README.md"}, {"rfilename": "data/old.parquet"}]
            if "/tree/" in self.path:
                self.answer([{"type": "file", "path": "data/old.parquet", "size": 1, "oid": "0"}])
                return
            self.answer({"id": "acme/web", "sha": "0" * 40, "siblings": there, "private": True, "tags": []})
        else:
            self.answer({"error": "Entry not found"}, 404)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(("POST", self.path, data, dict(self.headers)))
        if self.server.refuses:
            self.answer({"error": f"the token {TOKEN} may not write here"}, 403)
        elif self.path == "/api/repos/create":
            self.answer({"url": f"{self.server.url}/datasets/acme/web", "id": "acme/web"})
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(data)["files"]]
            self.answer({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]})
        elif "/commit/" in self.path:
            for line in map(json.loads, data.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    self.server.deleted.append(line["value"]["path"])
            url = f"{self.server.url}/datasets/acme/web/commit/{'0' * 40}"
            self.answer({"commitUrl": url, "commitOid": "0" * 40, "success": True})
        else:
            self.answer({})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="the extra `hub` brings it")
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    mixtures.documents(open_store(str(tmp_path / "lake")), "web", mixtures.texts(6), shards=2)
    return tmp_path / "lake"


def exported(lake: Path, folder: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["export", "dataset", "web@v1", str(folder), "--lake", str(lake), *options])


def test_the_folder_is_what_the_hub_gets_in_one_commit(server: Hub, lake: Path, tmp_path: Path) -> None:
    done = exported(lake, tmp_path / "out", "--as", "hf", "--push", "acme/web", "--license", "odc-by")
    assert done.exit_code == 0, done.output
    files = {str(path.relative_to(tmp_path / "out")): path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert server.files == {name: path.read_bytes() for name, path in files.items()}
    assert len([path for _, path, _, _ in server.asked if "/commit/" in path]) == 1
    (created,) = [json.loads(body) for method, path, body, _ in server.asked if path == "/api/repos/create"]
    assert (created["type"], created["name"], created["visibility"]) == ("dataset", "web", "private")
    assert f"pushed: {server.url}/datasets/acme/web/commit/" in done.stderr
    croissant = json.loads((tmp_path / "out" / "croissant.json").read_text())
    assert croissant["url"] == "https://huggingface.co/datasets/acme/web"
    assert "data/old.parquet" in server.deleted  # of the version that was there before


def test_no_token_is_written_or_said(server: Hub, lake: Path, tmp_path: Path) -> None:
    done = exported(lake, tmp_path / "out", "--push", "acme/web")
    assert any(TOKEN in headers.get("authorization", headers.get("Authorization", "")) for *_, headers in server.asked)
    server.refuses = True
    refused = exported(lake, tmp_path / "out", "--push", "acme/web")
    assert (
        refused.exit_code == 1 and "the hub did not take" in refused.stderr and "The folder is whole" in refused.stderr
    )
    output = done.output + refused.output + done.stderr + refused.stderr
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert TOKEN not in output and TOKEN.encode() not in written


def test_what_cannot_be_pushed_is_said_before_anything_is_written(lake, tmp_path, monkeypatch) -> None:
    for options, words in (
        (["--push", "web"], "give OWNER/NAME"),
        (["--public"], "--public is about --push"),
        (["--as", "csv"], "allowed are parquet, webdataset, hf"),
    ):
        done = exported(lake, tmp_path / "out", *options)
        assert done.exit_code == 2 and words in done.stderr
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    done = exported(lake, tmp_path / "out", "--push", "acme/web")
    assert done.exit_code == 2 and "pip install 'gristmill[hub]'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_defect_is_no_refusal_of_the_hubs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    api = pytest.importorskip("huggingface_hub").HfApi
    monkeypatch.setattr(api, "create_repo", lambda *args, **how: {}["no such key"])
    with pytest.raises(KeyError):
        hub.push(tmp_path, "acme/web", "message")
