"""The web pipeline under faults from outside: a changed byte, a swapped file, an address that is none."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
import web

import gristmill.stages.read.scan
from gristmill.lake.accounts.receipt import read_receipt
from gristmill.lake.store.opening import open_store
from gristmill.stages.run.unfinished import Incomplete


def test_a_changed_byte_in_stored_text_is_refused_and_deleting_the_object_heals(sample, tmp_path):
    files = web.crawl_files(sample)
    web.run(tmp_path, files)
    store = open_store(str(tmp_path))
    texts = [ref for key in store.list("receipts/") for ref in _outputs(store, key.key) if ref.kind == "text"]
    ref = max(texts, key=lambda ref: ref.bytes)
    data = bytearray(store.get(ref.key))
    data[len(data) // 3] ^= 1
    store.put(ref.key, bytes(data))
    more = {"gopher_quality": {"min_words": 150}}  # another threshold: the text is read again, and no version holds it
    with pytest.raises(Incomplete, match=f"DamagedObject: {ref.key}"):
        web.run(tmp_path, files, **more)
    store.delete(ref.key)
    healed = web.run(tmp_path, files, **more).manifest
    assert healed.digest == web.run(tmp_path / "other", files, **more).manifest.digest


def _outputs(store, key):
    receipt = read_receipt(store, Path(key).stem)
    return () if receipt is None else receipt.outputs


@pytest.mark.parametrize("url", ["http://[::1/x", "http://a\u2100b.example/x"])
def test_a_page_under_an_address_that_is_none_is_a_page_like_others(tmp_path, url):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "Some text.", "url": url}) + "\n")
    result = web.run(tmp_path / "lake", [tmp_path / "a.jsonl"], language={"keep": [], "min_score": None})
    assert result.manifest.dropped.count == 1 and not result.manifest.quarantined.count  # too few words


def test_a_file_replaced_by_one_of_its_size_and_time_is_another_input(tmp_path, monkeypatch):
    monkeypatch.setattr(gristmill.stages.read.scan, "SETTLED", 0.0)  # so that the first run takes a note of the file
    file = tmp_path / "a.jsonl"
    digests = []
    for city in ("London", "Dublin"):
        file.write_text(json.dumps({"text": f"The people of {city}"}) + "\n")
        os.utime(file, (1e9, 1e9))
        time.sleep(0.05)  # the clock of the file system is coarse
        digests.append(web.run(tmp_path / "lake", [file]).manifest.inputs[0].digest)
        assert list(open_store(str(tmp_path / "lake")).list("inputs/"))
    assert digests[0] != digests[1] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("how", ["swapped", "emptied"])
def test_notes_on_inputs_that_are_not_their_own_are_not_believed(tmp_path, monkeypatch, caplog, how):
    """Two entries of the scan cache that changed places made a run of A commit B's records under A's name."""
    monkeypatch.setattr(gristmill.stages.read.scan, "SETTLED", 0.0)
    files = {}
    for city in ("London", "Dublin"):
        files[city] = tmp_path / f"{city}.jsonl"
        files[city].write_text(json.dumps({"text": f"The people of {city}", "id": city}) + "\n")
        os.utime(files[city], (1e9, 1e9))
    time.sleep(0.05)
    web.run(tmp_path / "lake", list(files.values()), dataset="both")
    store = open_store(str(tmp_path / "lake"))
    notes = {info.key: store.get(info.key) for info in store.list("inputs/")}
    assert len(notes) == 2
    for key, data in zip(notes, [b"", b""] if how == "emptied" else list(notes.values())[::-1], strict=True):
        store.put(key, data)
    for city, file in files.items():
        (item,) = web.run(tmp_path / "lake", [file], dataset=city.lower()).manifest.inputs
        assert item.names == (str(file),) and item.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert caplog.text.count("is not used, and the file is scanned again") == 2
    assert sorted(store.get(key) for key in notes) == sorted(notes.values())  # written anew
