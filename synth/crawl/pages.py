"""The pages of one crawl, before they become records. Notable choices:

- every page is a function of (seed, crawl, number), so its text never depends on the others;
- proportions are constants below: about 70% English, 8% spam, 7.5% near-duplicates, 5% copies;
- a family's head is an ordinary English article of 200 words or more; its relatives stand on other hosts.
"""

from dataclasses import dataclass, field, replace

from gristmill.synth.articles import LANGUAGES, Article, article
from gristmill.synth.crawl.families import NOMINAL, near_duplicate
from gristmill.synth.crawl.html import Site, page, paragraphs, sites
from gristmill.synth.crawl.plants import Problem, plant_leak, plant_pii
from gristmill.synth.crawl.spam import KINDS, spam
from gristmill.synth.crawl.truth import Truth
from gristmill.synth.crawl.warc import chunked, gzip_member
from gristmill.synth.draw import Draw, uuid_of

SHARES = {
    "spam": 0.08,
    "near_duplicate": 0.075,
    "copy": 0.02,
    "copy_other_template": 0.02,
    "recrawl": 0.01,
    "pii": 0.02,
    "leak": 0.015,
    "http": 0.04,
}
_ENGLISH = 0.62  # of the plain articles; all others are English, which brings the whole to about 70%
_ODD = ("not_found", "moved", "server_error", "image", "pdf", "no_content_type", "chunked", "gzip_encoded")
_PDF = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n"
_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU"


@dataclass(frozen=True)
class Page:
    """A page as a server would send it. `key` names it within its crawl; `http` is (status, headers)."""

    key: str
    truth: Truth
    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    article: Article | None = field(default=None, repr=False)
    site: Site | None = None


def warc_id(seed: int, key: str) -> str:
    """The bare UUID of the response record of the page with this key."""
    return uuid_of("response", seed, key)


def _slug(title: str) -> str:
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in title.lower()).split()
    return "-".join(words[:6]) or "story"


def _of(language: str, draw: Draw, other_than: Site | None = None) -> Site:
    return draw.pick([s for s in sites() if s.language == language and s != other_than])


def _article_page(key: str, what: Article, site: Site, truth: Truth, url: str | None = None) -> Page:
    draw = Draw("url", key)
    if url is None:
        year, month = draw.between(2015, 2025), draw.between(1, 12)
        url = f"https://{site.host}/{year}/{month:02d}/{_slug(what.title)}-{draw.below(10**6):06d}.html"
    note = "; ".join(part for part in (truth.note, site.note) if part)
    truth = replace(truth, url=url, language=what.language, words=len(what.text.split()), note=note)
    if what.language != "en":
        truth = replace(truth, expected="dropped", reasons=("language",))
    html = page(site, what.title, paragraphs(what), what.title)
    headers = (("Content-Type", site.content_type), ("Server", "nginx"))
    return Page(key, truth, site.encode(html), 200, headers, what, site)


def articles(seed: int, folder: str, count: int) -> list[Page]:
    """Plain articles in all languages, of the crawl in this folder."""
    pages = []
    for i in range(count):
        draw = Draw(seed, folder, "article", i)
        language = "en" if draw.chance(_ENGLISH) else LANGUAGES[1 + i % (len(LANGUAGES) - 1)]
        pages.append(
            _article_page(f"{folder}/article/{i}", article(language, draw), _of(language, draw), Truth("article"))
        )
    return pages


def heads(pages: list[Page], count: int) -> list[Page]:
    """The first English articles of 200 words or more."""
    long = [p for p in pages if p.article and p.truth.language == "en" and (p.truth.words or 0) >= 200]
    return long[:count]


def relatives(seed: int, head: Page, nominal: float, url: str | None = None) -> Page:
    """A page whose text is near the head's; at the head's address if `url` is given."""
    assert head.article is not None and head.site is not None
    key = f"{head.key}/near/{nominal}" + ("/again" if url else "")
    draw = Draw(seed, key)
    edited, measured = near_duplicate(head.article, nominal, draw)
    site = head.site if url else _of("en", draw, head.site)
    expected = "dropped" if nominal >= 0.9 else "either" if nominal >= 0.7 else "kept"
    truth = Truth(
        "near_duplicate", expected=expected, reasons=() if expected == "kept" else ("minhash",),
        family=warc_id(seed, head.key), jaccard=round(measured, 4), note=f"nominal {nominal}",
    )  # fmt: skip
    return _article_page(key, edited, site, truth, url)


def copies(seed: int, head: Page, kind: str) -> Page:
    """The head's text at another address (copy), under another template, or at the same one again."""
    assert head.article is not None and head.site is not None
    key = f"{head.key}/{kind}"
    family = warc_id(seed, head.key)
    truth = Truth(kind, expected="dropped", reasons=("exact",), family=family, jaccard=1.0)
    if kind == "copy_other_template":
        truth = replace(truth, reasons=("exact", "minhash"), note="exact only if extraction removes all boilerplate")
        return _article_page(key, head.article, _of("en", Draw(seed, key), head.site), truth)
    suffix = "?print=1" if kind == "copy" else ""
    return _article_page(key, head.article, head.site, truth, f"{head.truth.url}{suffix}")


def spam_pages(seed: int, count: int) -> list[Page]:
    """Pages with one fault each, the kinds in turn."""
    pages = []
    for i in range(count):
        draw = Draw(seed, "spam", i)
        site, offer = _of("en", draw), spam(KINDS[i % len(KINDS)], draw)
        url = f"https://{site.host}/offers/{_slug(offer.title)}-{i}.html"
        truth = Truth(
            "spam", url, "dropped", offer.reasons, words=len(offer.text.split()),
            note="; ".join(part for part in (offer.kind, site.note) if part),
        )  # fmt: skip
        body = site.encode(page(site, offer.title, offer.html, url))
        pages.append(Page(f"spam/{i}", truth, body, 200, (("Content-Type", site.content_type),), None, site))
    return pages


def planted_pages(seed: int, pii: int, leaks: int, problems: tuple[Problem, ...]) -> list[Page]:
    """English articles with personal data, and with benchmark problems."""
    pages = []
    for i in range(pii):
        draw = Draw(seed, "pii", i)
        what, planted = plant_pii(article("en", draw), draw)
        pages.append(_article_page(f"pii/{i}", what, _of("en", draw), Truth("pii", pii=planted)))
    for i in range(leaks):
        draw = Draw(seed, "leak", i)
        problem, edited = problems[i % len(problems)], i % 2 == 1
        what = plant_leak(article("en", draw), problem, edited, draw)
        truth = Truth(
            "leak", expected="dropped", reasons=("decontaminate",), leaks=(problem.id,),
            note="lightly edited" if edited else "verbatim",
        )  # fmt: skip
        pages.append(_article_page(f"leak/{i}", what, _of("en", draw), truth))
    return pages


def odd_pages(seed: int, count: int) -> list[Page]:
    """HTTP variety: errors, redirects, other media types, transfer and content codings."""
    pages = []
    for i in range(count):
        draw, kind = Draw(seed, "http", i), _ODD[i % len(_ODD)]
        base = _article_page(f"http/{i}", article("en", draw), _of("en", draw), Truth("article", note=kind))
        pages.append(_bend(base, kind))
    return pages


def _bend(base: Page, kind: str) -> Page:
    """An ordinary page with one of _ODD: its answer is another, its text is the same where it has one."""
    statuses = {"not_found": 404, "moved": 301, "server_error": 500}
    media = {"image": ("image/png", _PNG), "pdf": ("application/pdf", _PDF)}
    if kind in statuses:
        status = statuses[kind]
        truth = replace(base.truth, kind="http_error", expected="dropped", reasons=("http",), words=None)
        body = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>".encode()
        place = (("Location", f"{base.truth.url}?moved"),) if status == 301 else ()
        return replace(base, truth=truth, body=body, status=status, headers=(*base.headers, *place), article=None)
    if kind in media:
        content_type, body = media[kind]
        truth = replace(base.truth, kind="not_html", expected="dropped", reasons=("content_type",), words=None)
        return replace(base, truth=truth, body=body, headers=(("Content-Type", content_type),), article=None)
    if kind == "no_content_type":
        return replace(base, headers=(("Server", "nginx"),))
    if kind == "chunked":
        return replace(base, body=chunked(base.body), headers=(*base.headers, ("Transfer-Encoding", "chunked")))
    return replace(base, body=gzip_member(base.body), headers=(*base.headers, ("Content-Encoding", "gzip")))


def crawl(seed: int, total: int, problems: tuple[Problem, ...]) -> list[Page]:
    """About `total` pages of the first crawl, in a drawn order."""
    share = {name: max(1, round(total * value)) for name, value in SHARES.items()}
    special = sum(share.values())
    plain = articles(seed, "crawl", max(10, total - special))
    families = heads(plain, max(1, share["near_duplicate"] // len(NOMINAL)))
    pages = plain + [relatives(seed, head, nominal) for head in families for nominal in NOMINAL]
    # Copies are of articles without relatives: a family has one head, and its truth says so.
    later = heads(plain, len(plain))[len(families) :]
    for kind in ("copy", "copy_other_template", "recrawl"):
        chosen, later = later[: share[kind]], later[share[kind] :]
        pages += [copies(seed, head, kind) for head in chosen]
    pages += spam_pages(seed, max(len(KINDS), share["spam"]))
    pages += planted_pages(seed, share["pii"], share["leak"], problems)
    pages += odd_pages(seed, max(len(_ODD), share["http"]))
    return Draw(seed, "order").shuffled(pages)
