"""Clips that are taken down leave the windows of mixtures: by what a takedown may name, and killed at any step."""

from __future__ import annotations

import hashlib
import shutil

import mixtures
import numpy as np
import pytest
from clip_mixtures import TAKEN
from drafts import draft
from forget_lake import erase, readable
from killed import Killed, Killing, kills_until, state, steps
from mixtures import documents, mix, texts, tokenizer
from speech import SAYS, clip, encoded, run, waveform
from vision import folder_of, rows

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.query.why import why
from gristmill.lake.store.objects import put_file, scratch
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.stages.mix.windows import read_windows

LONG = encoded(np.concatenate([waveform(seed) for seed in range(4)]), format="FLAC")
CLIPS = {"long.flac": LONG, **{f"{n}.wav": clip(n) for n in range(4, 8)}}
LINES = [
    *(
        {
            "audio": "long.flac",
            "start": 2 * n,
            "end": 2 * n + 2,
            "text": SAYS.format(n),
            "url": f"https://l.example/{n}",
        }
        for n in range(4)
    ),
    *({"audio": f"{n}.wav", "text": SAYS.format(n), "url": f"https://{n % 2}.example/{n}"} for n in range(4, 8)),
]
MIX = {"window": 200, "audio": TAKEN, "max_waste": 0.5}


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A lake with documents, four segments of a long file, four whole clips and a mixture of all, on which a model was
    trained."""
    folder = tmp_path_factory.mktemp("clips")
    store = open_store(str(folder / "lake"))
    documents(store, "web", texts(12, longest=80))
    run(store, [folder_of(folder / "in", LINES, CLIPS)])
    tokenizer(store, "web@v1", "speech@v1")
    mixed = mix(store, {"web@v1": 1, "speech@v1": 2}, **MIX).manifest
    with scratch() as own:
        (own / "weights").write_bytes(b"weights")
        ref = put_file(store, "weights", own / "weights", 1)
    source = mixed.ref.model_copy(update={"role": "trained_on"})
    none = {"received": Tally(), "kept": Tally()}
    Versions(store).commit(
        draft("saw", hashlib.sha256(b"saw").hexdigest(), [], (ref,), form="model", sources=(source,), **none)
    )
    return folder / "lake"


@pytest.fixture
def store(origin, tmp_path):
    shutil.copytree(origin, tmp_path / "lake")
    return open_store(str(tmp_path / "lake"))


def by_member(windows):
    """(window, member, start) -> tokens and frames of its stretch."""
    held = {}
    for window in windows:
        bounds, clips = window.arrays["cu_seqlens"], window.meta.get("clips", [])
        ends = window.arrays.get("cu_frames", np.zeros(1, np.int32))
        assert np.diff(ends).tolist() == [about["frames"] for about in clips]
        for n, member in enumerate(window.meta["members"]):
            ids = window.arrays["input_ids"][bounds[n] : bounds[n + 1]].tobytes()
            own = [number for number, about in enumerate(clips) if about["stretch"] == n]
            frames = [window.arrays["mel"][ends[number] : ends[number + 1]].tobytes() for number in own]
            held[window.key, member["member"], member["start"]] = (ids, *frames)
    return held


def sha(name):
    return hashlib.sha256(CLIPS[name]).hexdigest()


def request_of(store, what):
    """A takedown, and the numbers of the clips that it names."""
    kept = rows(store, Versions(store).resolve("speech"))
    id_of = {int(row["text"].partition("number ")[2][0]): row for row in kept}
    segment = id_of[2]["media"][0]["sha256"]
    return {
        "url": (Suppression.of(urls=["https://l.example/1"]), {1}),
        "id": (Suppression.of(ids=[id_of[5]["id"]]), {5}),
        "domain": (Suppression.of(domains=["0.example"]), {4, 6}),
        "clip": (Suppression.of(media=[sha("7.wav")]), {7}),
        "segment": (Suppression.of(media=[segment]), {2}),
        "file of segments": (Suppression.of(media=[sha("long.flac")]), {0, 1, 2, 3}),
    }[what], {number: row["id"] for number, row in id_of.items()}


@pytest.mark.parametrize("what", ["url", "id", "domain", "clip", "segment", "file of segments"])
def test_what_is_taken_down_leaves_neither_tokens_nor_frames(store, what):
    versions = Versions(store)
    (request, numbers), ids = request_of(store, what)
    gone = {ids[number] for number in numbers}
    before = by_member(mixtures.windows(store, versions.resolve("mix")))
    frames = [held[1][: 80 * 4 * 20] for key, held in before.items() if key[1] in gone]
    assert frames and all(any(part in data for _, data in readable(store)) for part in frames)
    plan = plan_forget(versions, request)
    assert "saw@v1" in {derived.ref for derived in plan.derived}
    forget(versions, plan, "request 1")
    clean = versions.resolve("mix")
    windows = mixtures.windows(store, clean)
    assert by_member(windows) == {key: held for key, held in before.items() if key[1] not in gone}
    clips = [about for window in windows for about in window.meta.get("clips", ())]
    counted = (clean.statistics["clips"], clean.statistics["frames"])
    assert counted == (len(clips), sum(about["frames"] for about in clips))
    reader = read_windows(store, clean)
    assert sum(reader.counts(n).frames for n in range(len(reader))) == clean.statistics["frames"]
    erase(store)
    assert not [finding.message for finding in verify(store, ["mix"], deep=True)]
    assert not any(part in data for part in frames for _, data in readable(store))
    assert not plan_forget(versions, request).affected
    assert "saw@v1" in {derived.ref for derived in plan_forget(versions, request).derived}


def test_why_knows_a_clip_and_a_file_of_segments_in_mixtures_too(store):
    versions = Versions(store)
    for digest, count in ((sha("7.wav"), 1), (sha("long.flac"), 4)):
        stories = why(versions, digest).stories
        assert {name: sum(story.dataset == name for story in stories) for name in ("speech", "mix")} == {
            "speech": count,
            "mix": count,
        }


def test_a_takedown_that_is_killed_at_any_step_ends_as_one_that_is_not(origin, tmp_path):
    request = Suppression.of(media=[sha("long.flac")])

    def lake(name):
        return open_store(str(shutil.copytree(origin, tmp_path / name)))

    def act(store):
        versions = Versions(store)
        forget(versions, plan_forget(versions, request), "request 1")

    calm = lake("calm")
    written = steps(calm, act)
    objects = [n for n, key in enumerate(written) if key.startswith("objects/")]
    for n in sorted(set(range(len(written))) - set(objects[2:-1])):  # one object not written is like another
        hurt = lake(str(n))
        with pytest.raises(Killed):
            act(Killing(hurt, n, []))
        act(hurt)
        assert state(hurt) == state(calm), written[n]


def test_a_mixture_that_is_killed_at_any_receipt_has_the_same_digest(store):
    given = {**MIX, "shard_frames": 800, "dataset": "again"}
    sources = {"web@v1": 1, "speech@v1": 1}
    whole = mix(open_store(str(shutil.copytree(store.uri, store.uri + "-whole"))), sources, **given).manifest
    kills = kills_until(lambda: Versions(store).numbers("again"), lambda: mix(store, sources, **given), 2)
    assert kills > 3
    assert Versions(store).manifest("again", 1).content_digest == whole.content_digest
    assert not verify(store, ["again"], deep=True)
