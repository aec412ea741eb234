"""Web pages around articles: six layouts on some forty invented hosts. Notable choices:

- boilerplate (menu, cookie banner, related links, footer) is fixed by host, in the host's language;
- the page is a function of host and article, so an article at two addresses of a host gives the same bytes;
- every host ends in example.org, example.com, example.net or .example; none can exist;
- characters outside the host's charset become numeric references, as a careful editor's would.
"""

from dataclasses import dataclass
from functools import cache
from html import escape

from gristmill.synth.articles import Article
from gristmill.synth.draw import Draw
from gristmill.synth.grammar import data_lines, grammar, sentence

BOM = b"\xff\xfe"


@dataclass(frozen=True)
class Site:
    """A host: its language, charset, where the charset is declared, and its layout (0 to 5)."""

    host: str
    language: str
    charset: str
    declared: str
    layout: int

    @property
    def content_type(self) -> str:
        """The Content-Type header this host sends for a page."""
        return f"text/html; charset={self.charset}" if self.declared in ("header", "both") else "text/html"

    @property
    def note(self) -> str:
        """What is particular about the charset; empty for declared UTF-8."""
        if self.charset == "utf-8" and self.declared != "none":
            return ""
        return f"charset {self.charset}, declared: {self.declared}"

    def encode(self, text: str) -> bytes:
        """The bytes this host serves for a text."""
        if self.charset == "utf-16":
            return BOM + text.encode("utf-16-le")
        return text.encode(self.charset, "xmlcharrefreplace")


@dataclass(frozen=True)
class Labels:
    """The words a site in one language puts around its articles."""

    menu: tuple[str, ...]
    cookies: str
    related: str
    footer: str
    advertisement: str
    subscribe: str


@cache
def sites() -> tuple[Site, ...]:
    """All hosts, in the order of data/sites.txt."""
    rows = [line.split("|") for line in data_lines("sites.txt")]
    return tuple(Site(host, language, charset, where, int(layout)) for host, language, charset, where, layout in rows)


@cache
def labels(language: str) -> Labels:
    """The labels of a language."""
    for line in data_lines("labels.txt"):
        name, menu, cookies, related, footer, advertisement, subscribe = line.split("|")
        if name == language:
            return Labels(tuple(menu.split(",")), cookies, related, footer, advertisement, subscribe)
    raise ValueError(f"no labels for language {language!r} in data/labels.txt")


@cache
def _teasers(host: str, language: str) -> tuple[str, ...]:
    draw, rules = Draw("teasers", host), grammar(language)
    titles = [title for topic in rules.topics.values() for title in topic.titles]
    return tuple(sentence(draw.pick(titles), rules, draw, {}) for _ in range(24))


def _links(items: tuple[str, ...] | list[str], path: str) -> str:
    return "".join(f'<li><a href="/{path}/{i}">{escape(item)}</a></li>' for i, item in enumerate(items))


def paragraphs(article: Article) -> str:
    """The article's paragraphs as HTML; every fourth has an inline link, as editors add them."""
    out = []
    for i, text in enumerate(article.paragraphs):
        words = text.split(" ")
        shown = [escape(word, quote=False) for word in words]
        if i % 4 == 2 and len(words) > 8:
            shown[5] = f'<a href="/topics/{i}">{shown[5]}</a>'
        out.append(f"<p>{' '.join(shown)}</p>")
    return "\n".join(out)


def page(site: Site, title: str, body: str, key: str) -> str:
    """A whole HTML page: `body` is HTML, `key` decides the related links."""
    words = labels(site.language)
    teasers = Draw("related", site.host, key).shuffled(_teasers(site.host, site.language))
    menu = f'<ul class="menu">{_links(words.menu, "section")}</ul>'
    related = f'<h3>{words.related}</h3><ul class="related">{_links(teasers[:6], "story")}</ul>'
    banner = f'<div id="cookie-banner" class="cookie-consent" role="dialog">{words.cookies}</div>'
    footer = f"<p>© {site.host}. {words.footer}</p><ul>{_links(words.menu[-3:], 'service')}</ul>"
    advert = f'<div class="ad"><span>{words.advertisement}</span><img src="/b.gif" alt=""></div>'
    subscribe = f'<form class="newsletter"><label>{words.subscribe}</label><input name="m"></form>'
    heading = f"<h1>{escape(title)}</h1>"
    content = _LAYOUTS[site.layout].format(
        menu=menu, related=related, banner=banner, footer=footer, advert=advert, subscribe=subscribe,
        heading=heading, body=body, host=site.host,
    )  # fmt: skip
    return _head(site, title) + content + "\n</body>\n</html>\n"


def _head(site: Site, title: str) -> str:
    meta = ""
    if site.declared in ("meta", "both"):
        http = f'<meta http-equiv="Content-Type" content="text/html; charset={site.charset}">'
        meta = http if site.layout % 2 else f'<meta charset="{site.charset}">'
    return (
        f'<!DOCTYPE html>\n<html lang="{site.language}">\n<head>\n{meta}\n'
        f"<title>{escape(title)} | {site.host}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="stylesheet" href="/style.css">\n'
        f"<style>body{{margin:0}} .ad{{width:{300 + site.layout}px}}</style>\n"
        f'<script>var site = "{site.host}"; window.track = function (e) {{ return [site, e]; }};</script>\n'
        "</head>\n<body>\n"
    )


_LAYOUTS = (
    '<header><a href="/">{host}</a><nav>{menu}</nav></header>{banner}\n'
    "<main><article>{heading}\n{body}\n</article></main>\n"
    "<aside>{related}{advert}</aside>\n<footer>{footer}</footer>",
    '{banner}<div class="header"><nav>{menu}</nav></div>\n'
    '<div id="content" class="post"><div class="entry-content">{heading}\n{body}\n</div></div>\n'
    '<div class="sidebar" id="sidebar">{subscribe}{related}</div><div class="footer">{footer}</div>',
    '<nav class="navbar">{menu}</nav>{advert}<main id="main">\n{heading}\n'
    '<section class="article-body">\n{body}\n</section></main>\n'
    "<aside>{related}</aside>{subscribe}<footer>{footer}</footer>{banner}",
    '<div id="wrapper"><header>{menu}</header>\n'
    '<article class="recipe post-content">{heading}\n{body}\n</article>\n'
    '<div class="related-posts">{related}</div>{advert}</div><footer>{footer}{subscribe}</footer>{banner}',
    '<div id="nav" class="navigation">{menu}</div>\n'
    '<div id="main-content"><div class="article">{heading}\n{body}\n</div></div>\n'
    '<div id="footer" class="footer">{footer}</div>{banner}',
    "{banner}<header><nav>{menu}</nav>{subscribe}</header>\n<main>{heading}<article>\n{body}\n</article>\n"
    '<aside class="sidebar">{advert}{related}</aside></main>\n<footer>{footer}</footer>',
)
