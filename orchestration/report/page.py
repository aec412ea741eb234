"""Reports: one version, or all that a run brought about, as one HTML page that asks no network for anything.

What is looked at first stands first: what came in, what was kept, why the rest went, whether the model learned; then
examples, where it comes from and what it took. Everything is read from the lake, and a section without data is left
out. The page is a function of the versions: written again it is the same. Its policy allows one style sheet and one
script, by their digests, and pictures and sounds that stand in it; nothing else is loaded or run, whoever wrote it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from gristmill.lake.store.base import Store
from gristmill.lake.versions.versions import NoSuchVersion, Versions
from gristmill.orchestration.report import examples, reasoning, records
from gristmill.orchestration.report.evaluation import answers, beside, evaluation
from gristmill.orchestration.report.html import Html, element, joined
from gristmill.orchestration.report.look import SCRIPT, STYLE
from gristmill.orchestration.report.media import Room
from gristmill.orchestration.report.origin import cost, lineage, provenance
from gristmill.orchestration.report.overview import overview, summary
from gristmill.orchestration.report.pieces import NOTHING, anchor, name, section, side_by_side
from gristmill.orchestration.report.subject import Subject, read_subject
from gristmill.orchestration.report.training import curves, mixture, small_curve, training
from gristmill.orchestration.show.runs import training_of_run
from gristmill.orchestration.show.tables import when
from gristmill.pipelines.frame.growth import growth_report


def write_report(store: Store, versions: Sequence[str], path: Path, title: str = "") -> Path:
    """Writes the page of these versions, `NAME`, `NAME@vN` or `NAME@TAG`, to a file, and returns its path.

    One of them is a page on it; several are one on all of them, in this order, with what they have in common first. A
    single one may be the key of a training that still runs. `title`: of the page, where another says more than names of
    versions. Raises NoSuchVersion, DamagedObject, ValueError for none.
    """
    if not versions:
        raise ValueError("a report needs a version at least")
    content = page(Versions(store), versions, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(content, encoding="utf-8")
    os.replace(part, path)
    return path


def default_name(store: Store, refs: Sequence[str]) -> str:
    """The file of a report that is given none: `report-web-v3.html`; of several versions the last one's, `-and-N`."""
    try:
        last = str(Versions(store).resolve(refs[-1]))
    except NoSuchVersion:  # the key of a run; what is neither is an error of `write_report`
        last = refs[-1]
    more = f"-and-{len(refs) - 1}" if len(refs) > 1 else ""
    return f"report-{anchor(last)}{more}.html"


def page(versions: Versions, refs: Sequence[str], title: str = "") -> str:
    """The page itself. Raises as `write_report`."""
    try:
        subjects = [read_subject(versions, ref) for ref in dict.fromkeys(refs)]
    except NoSuchVersion:
        running = _running(versions.store, refs)
        if running is None:
            raise
        return running
    return drawn_page(subjects, title)


def drawn_page(subjects: Sequence[Subject], title: str = "") -> str:
    """The page of what was read. `title`: as of `write_report`."""
    room = Room()
    if len(subjects) == 1:
        (subject,) = subjects
        rounds, origins = reasoning.rounds(subject.rounds), lineage(subjects)
        ending = (rounds, origins, cost(subject.works, subject.ref), provenance(subject))
        return _document(title or subject.ref, summary(subject), NOTHING, joined([*_sections(subject, room), *ending]))
    articles = [_article(subject, room) for subject in subjects]
    works = [work for subject in subjects for work in subject.works]
    body = joined([_common(subjects), *articles, lineage(subjects), cost(works, "all versions")])
    links = joined(element("li", element("a", each.ref, href=f"#{anchor(each.ref)}")) for each in subjects)
    first, last = subjects[0].manifest.made.get("at"), subjects[-1].manifest.made.get("at")
    about = element("p", f"{len(subjects)} versions, made from {when(first)} to {when(last)} UTC.", class_="lead")
    return _document(title or f"{subjects[0].ref} to {subjects[-1].ref}", about, links, body)


def _common(subjects: Sequence[Subject]) -> Html:
    """What several versions have in common: what came of each, whether models learned, rounds."""
    trained = [small_curve(each.curve, each.ref, anchor(each.ref)) for each in subjects if each.curve is not None]
    learned = section("Did it learn", side_by_side(trained)) if len(trained) > 1 else NOTHING
    rounds = {str(m): m for subject in subjects for m in subject.rounds}
    return joined([overview(subjects), beside(subjects), learned, reasoning.rounds(list(rounds.values()))])


def _article(subject: Subject, room: Room) -> Html:
    """A version among others."""
    head = element("h2", name(subject.ref))
    body = joined([*_sections(subject, room), provenance(subject)])
    return element("article", head, summary(subject), body, id=anchor(subject.ref))


def _sections(subject: Subject, room: Room) -> list[Html]:
    """What is particular to a version, in the order in which it is asked for."""
    m = subject.manifest
    return [
        records.cautions(subject, growth_report(m, subject.about.changed)),
        records.fates(m),
        evaluation(subject),
        training(m, subject.curve),
        mixture(m),
        records.funnel(m),
        records.reasons(m),
        reasoning.rollouts(m),
        reasoning.selection(m),
        records.distributions(subject),
        records.clusters(m),
        answers(subject),
        examples.windows(subject, room),
        examples.kept(subject, room),
        examples.refused(subject, room),
    ]


def _running(store: Store, refs: Sequence[str]) -> str | None:
    """The page of a training without a result; None where the only reference is no key of one."""
    if len(refs) != 1 or (training := training_of_run(store, refs[0])) is None:
        return None
    about = training.about
    lead = element("p", f"A training for {about['for']} that has no result yet.", class_="lead")
    body = NOTHING if training.curve is None else section("Training", curves(training.curve, about["for"]))
    return _document(f"Run {about['run'][:12]}", lead, NOTHING, body)


def _document(title: str, about: Html, links: Html, body: Html) -> str:
    """The whole of a page."""
    policy = (
        f"default-src 'none'; style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'; img-src data:;"
        " media-src data:; base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{title}: gristmill"),
        element("style", Html(STYLE)),
    )
    switch = element("button", "Dark colours", id="theme", type="button", hidden=True)
    nav = element("nav", element("ul", links), aria_label="Versions on this page") if links else NOTHING
    heading = element("div", element("h1", name(title)), about)
    top = element("header", element("div", heading, switch, class_="top"), nav)
    skip = element("a", "Skip to the content", href="#content", class_="skip")
    end = element("footer", "Made by gristmill from the manifests, ledgers and receipts of a lake.")
    body = element("body", skip, top, element("main", body, id="content"), end, element("script", Html(SCRIPT)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _digest(text: str) -> str:
    """As a content security policy names an element's text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
