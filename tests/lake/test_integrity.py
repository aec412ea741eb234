"""One lake with two files of each kind; each is emptied, cut, changed, swapped with its sibling and deleted.

`verify` names what it can know of, no command dies of a codec, and what does not need the file is served all the same.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import toy
from typer.testing import CliRunner

from gristmill.lake.accounts.receipt import finished
from gristmill.lake.inputs.files import InputInfo
from gristmill.lake.inputs.notes import known, remember
from gristmill.lake.query.query import list_versions
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_refs
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.sealed import Unreadable, read_note, seal, unseal, write_note
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.growth import Growth, plan_growth
from gristmill.lake.versions.lease import Lease
from gristmill.lake.versions.markers import create_pass
from gristmill.lake.versions.roots import slot_key
from gristmill.lake.versions.versions import NoSuchVersion, Versions
from gristmill.orchestration.cli.main import app

INFOS = [InputInfo(f"/crawl/{name}.warc", 100, 1.5, None, 2.5) for name in "ab"]
DIGESTS = [("a" * 64, "warc"), ("b" * 64, "warc")]
PATTERNS = {
    "manifest": r"datasets/web/versions/\d+\.json",
    "tag": r"datasets/web/tags/.*",
    "withdrawal": r"datasets/code/withdrawn/.*",
    "pass": r"datasets/web/passed/.*",
    "pin": r"datasets/web/pins/.*",
    "receipt": r"receipts/.*",
    "note": r"inputs/.*",
    "lease": r"runs/[^/]*/lease\.json",
    "announcement": r"runs/[^/]*/0000\.json",
    "suppression": r"suppressions/.*",
}
OF_OBJECTS = ("shard", "ledger", "screened", "refs", "text")
SMALL = ("tag", "withdrawal", "pass", "pin", "receipt", "note", "lease", "announcement")
"""Files without which versions are still listed and shown."""
RAW = re.compile(r"Traceback|Expecting value|codec|KeyError|Invalid JSON|Extra data|validation error", re.IGNORECASE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda fd: None)
        store = open_store(str(tmp_path_factory.mktemp("whole") / "lake"))
        fill(store)
    return store


def fill(store: Store) -> None:
    versions = Versions(store)
    for n in (20, 40):
        listed = put_refs(store, [toy.put_text(store, f"listed {n}")])
        toy.commit(store, "web", range(n), attachments=(toy.put_text(store, f"measures {n}", "screened"), listed))
    for n in (5, 6, 7):
        toy.commit(store, "code", range(n))
    versions.tag("web", 1, "first")
    versions.tag("web", 2, "second")
    versions.withdraw("code", 1, "a mistake")
    versions.withdraw("code", 2, "another")
    for n in (1, 2):
        create_pass(store, "web", n, "e" * 64, None)
        assert isinstance(plan_growth(versions, "web", {"n": n}, ["f" * 64]), Growth)
        Suppression.of(urls=[f"https://gone.example/{n}"]).save(store, "asked")
        lease = Lease(store, "web")  # not left: as of a run that is alive
        lease._touch()
        lease.announce("scan", [f"{n}" * 64])
    for info, digest in zip(INFOS, DIGESTS, strict=True):
        remember(store, info, digest)


@pytest.fixture
def store(whole: Store, tmp_path: Path) -> Store:
    shutil.copytree(whole.uri, tmp_path / "lake")
    return open_store(str(tmp_path / "lake"))


def two_of(store: Store, kind: str) -> list[str]:
    """Keys of two files of a kind, the second one the newer."""
    if kind in OF_OBJECTS:
        refs = [ref for n in (1, 2) for ref in Versions(store).manifest("web", n).objects()]
        if kind == "text":  # in no version
            return [ref.key for receipt in receipts(store) for ref in receipt.outputs if ref.kind == "text"][:2]
        return [ref.key for ref in refs if ref.kind == kind][:2]
    return [key for key in sorted(toy.keys(store)) if re.fullmatch(PATTERNS[kind], key)][:2]


def receipts(store: Store) -> list:
    keys = sorted(toy.keys(store, "receipts/"))
    return [finished(store, key.rpartition("/")[2].removesuffix(".json")) for key in keys]


def swap(store: Store, first: str, second: str) -> None:
    first_bytes, second_bytes = store.get(first), store.get(second)
    store.put(first, second_bytes)
    store.put(second, first_bytes)


DAMAGES: dict[str, Callable[[Store, str, str], None]] = {
    "emptied": lambda store, key, other: store.put(key, b""),
    "cut": lambda store, key, other: store.put(key, store.get(key)[: len(store.get(key)) // 2]),
    "changed": lambda store, key, other: toy.flip(store, key),
    "first byte": lambda store, key, other: toy.flip(store, key, 0),
    "late byte": lambda store, key, other: toy.flip(store, key, len(store.get(key)) - 10),
    "binary": lambda store, key, other: store.put(key, bytes(range(256))),
    "a list": lambda store, key, other: store.put(key, b"[1, 2]"),
    "swapped": lambda store, key, other: swap(store, key, other),
    "deleted": lambda store, key, other: store.delete(key),
}
UNKNOWN = {
    ("deleted", kind)
    for kind in ("tag", "withdrawal", "pass", "pin", "receipt", "note", "lease", "announcement", "text")
} | {("deleted", "suppression"), ("deleted", "newest manifest"), ("late byte", "suppression")}
"""What leaves no trace; of a request to forget, its entries are what its name covers, not reason and date."""


def grist(store: Store, *args: str) -> tuple[int, str]:
    """(exit code, all output); any exception is a defect."""
    result = CliRunner().invoke(app, [*args, "--lake", store.uri])
    assert result.exception is None or isinstance(result.exception, SystemExit), (args, result.exception)
    assert not RAW.search(result.output), (args, result.output)
    return result.exit_code, result.output


@pytest.mark.parametrize("kind", [*PATTERNS, "newest manifest", *OF_OBJECTS])
@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_names_it(store: Store, kind: str, damage: str) -> None:
    pair = two_of(store, kind.removeprefix("newest "))
    assert len(pair) == 2, kind
    key, other = reversed(pair) if kind == "newest manifest" else pair
    DAMAGES[damage](store, key, other)
    findings = verify(store, deep=kind in OF_OBJECTS)
    for finding in findings:
        assert not RAW.search(finding.message)
    named = " ".join(finding.where + finding.message for finding in findings)
    if (damage, kind) in UNKNOWN:
        return
    assert key in named or key.rpartition("/")[2] in named, (key, findings)


@pytest.mark.parametrize("kind", [*PATTERNS, "newest manifest"])
@pytest.mark.parametrize("damage", ["emptied", "swapped", "binary"])
def test_no_command_dies_of_it_and_the_rest_is_served(store: Store, tmp_path: Path, kind: str, damage: str) -> None:
    asked = tmp_path / "urls.txt"
    asked.write_text("https://example.org/3\n")
    pair = two_of(store, kind.removeprefix("newest "))
    key, other = reversed(pair) if kind == "newest manifest" else pair
    DAMAGES[damage](store, key, other)
    listing, log = grist(store, "ls"), grist(store, "log", "web")
    assert listing[0] == log[0] == 0 and "code" in listing[1] and "v1" in log[1]
    shown = [grist(store, "show", ref) for ref in ("web@v1", "web@v2", "code")]
    if kind in SMALL:
        assert [code for code, _ in shown] == [0, 0, 0]
    assert shown[2][0] == 0
    code, output = grist(store, "why", toy.toy_id(0))
    assert code == 0 and "kept" in output
    for args in (["gc"], ["show", "web@first"], ["lineage", "web"], ["verify"], ["ls", "web", "--json"]):
        grist(store, *args)
    code, output = grist(store, "forget", "--reason", "asked", "--urls", str(asked))
    if kind in SMALL:
        assert code == 0, output
    elif code:
        assert any(name.rpartition("/")[2] in output for name in pair)


def test_a_listing_marks_a_version_that_cannot_be_read(store: Store) -> None:
    store.put(slot_key("web", 2), b"{")
    warnings: list[str] = []
    rows = list_versions(Versions(store, warnings.append), "web")
    assert [row.version for row in rows] == [2, 1] and rows[0].tags == ("second",) and rows[1].problem is None
    assert rows[0].problem is not None and slot_key("web", 2) in rows[0].problem and warnings == [rows[0].problem]
    assert "manifest cannot be read" in grist(store, "log", "web")[1]
    with pytest.raises(Unreadable, match=r"00000002.json .*restore the file"):
        Versions(store).resolve("web")


def test_a_tag_that_cannot_be_read_is_an_error_where_it_is_asked_for(store: Store) -> None:
    swap(store, "datasets/web/tags/first.json", "datasets/web/tags/second.json")
    warnings: list[str] = []
    versions = Versions(store, warnings.append)
    assert versions.tags("web") == {} and versions.tags("web") == {} and len(warnings) == 2
    with pytest.raises(Unreadable, match=r"tags/first\.json .*it is about tag 'second'.*`grist tag web@vN first`"):
        versions.resolve("web@first")
    with pytest.raises(NoSuchVersion, match="no tag 'third'"):
        versions.resolve("web@third")


def test_a_withdrawal_holds_whatever_its_file_says(store: Store) -> None:
    store.put("datasets/code/withdrawn/00000001.json", b"")
    warnings: list[str] = []
    versions = Versions(store, warnings.append)
    assert versions.withdrawn("code") == {1: "datasets/code/withdrawn/00000001.json does not say why", 2: "another"}
    assert versions.latest("code") == 3 and "stays withdrawn" in warnings[0]


def test_two_notes_that_changed_places_are_not_believed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    assert [known(store, info) for info in INFOS] == DIGESTS
    swap(store, *two_of(store, "note"))
    assert [known(store, info) for info in INFOS] == [None, None] and "scanned again" in caplog.text
    remember(store, INFOS[0], DIGESTS[0])
    assert known(store, INFOS[0]) == DIGESTS[0]


def test_a_note_of_an_older_release_is_scanned_again(store: Store) -> None:
    key = two_of(store, "note")[0]
    store.put(key, json.dumps({"format": 1, "digest": "a" * 64, "kind": "warc"}).encode())
    assert None in [known(store, info) for info in INFOS] and verify(store) == []


@pytest.mark.parametrize("damage", ["emptied", "changed", "swapped"])
def test_a_night_whose_pin_is_damaged_is_pinned_anew(store: Store, damage: str) -> None:
    pins = two_of(store, "pin")
    DAMAGES[damage](store, *pins)
    warnings: list[str] = []
    plans = [plan_growth(Versions(store, warnings.append), "web", {"n": n}, ["f" * 64]) for n in (1, 2)]
    attempts = sorted(plan.attempt for plan in plans if isinstance(plan, Growth))
    assert attempts == ([2, 2] if damage == "swapped" else [1, 2]) and len(warnings) == attempts.count(2)
    assert {plan.base for plan in plans if isinstance(plan, Growth)} == {2}


def test_another_datasets_manifest_is_not_served(store: Store) -> None:
    swap(store, slot_key("web", 1), slot_key("code", 3))
    for name, number in (("web", 1), ("code", 3)):
        with pytest.raises(Unreadable, match=f"{name}@v{number}: .* it is the manifest of|cannot be read"):
            Versions(store).manifest(name, number)


def test_every_edit_of_the_newest_manifest_is_noticed(store: Store) -> None:
    key = slot_key("web", 2)
    good = store.get(key)
    for field, value in json.loads(unseal(good)).items():
        changed = json.loads(good) | {field: "x" if value is None or isinstance(value, str) else None}
        store.put(key, json.dumps(changed, indent=1).encode())
        assert [finding.where for finding in verify(store)] == [key], field
        with pytest.raises(Unreadable):
            Versions(store).manifest("web", 2)
    store.put(key, good)
    assert verify(store) == []


def test_a_file_of_no_kind_is_named(store: Store) -> None:
    strangers = ["datasets/web/notes.txt", "objects/ab/README", "inputs/x", "elsewhere/y", "suppressions/list.json"]
    for key in strangers:
        store.put(key, b"?")
    findings = verify(store)
    assert {finding.where for finding in findings} == set(strangers)
    assert {(finding.severity, finding.what) for finding in findings} == {("warning", "foreign")}


def test_a_version_made_from_one_that_changed_is_named(store: Store) -> None:
    base = Versions(store).manifest("web", 2).ref
    toy.commit(store, "mixture", range(3), sources=(base.model_copy(update={"digest": "0" * 64}),))
    toy.commit(store, "lost", range(3), sources=(base.model_copy(update={"version": 9}),))
    messages = {finding.harmed: finding.message for finding in verify(store)}
    assert "which now has" in messages[("mixture@v1",)] and "which is not there" in messages[("lost@v1",)]


# The seal itself


def test_a_seal_covers_every_byte(store: Store) -> None:
    about = {"dataset": "web", "tag": "t"}
    data = write_note(about, version=3)
    assert json.loads(unseal(data)) == {"format": 2, **about, "version": 3}
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 1
        with pytest.raises(ValueError, match=r"changed|cut short|format"):
            unseal(bytes(bad))
    for end in range(len(data)):
        with pytest.raises(ValueError, match=r"empty|changed|cut short"):
            unseal(data[:end])


def test_a_note_of_format_1_is_read_without_a_seal(store: Store) -> None:
    store.put("datasets/web/tags/old.json", b'{"format": 1, "version": 2}')
    assert Versions(store).tags("web")["old"] == 2
    store.put("datasets/web/tags/old.json", b'{"format": 1, "version": "2"}')
    with pytest.raises(Unreadable, match=r"it has no version \(int\)"):
        read_note(store, "datasets/web/tags/old.json", {}, "remedy", version=int)


def test_only_what_json_wrote_with_an_indent_is_sealed() -> None:
    with pytest.raises(ValueError, match="indent=1"):
        seal(b"{}")
