"""Characters of pages: which charset, by labels, bytes and language."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.stages.text.charset import decode
from gristmill.stages.text.charset_labels import codec, prescan
from gristmill.stages.text.html import ExtractConfig, extract

GERMAN = "Grüße aus Köln, schöne Überraschung. " * 5
RUSSIAN = "Привет, как дела, что нового в городе? " * 5


def meta(charset: str) -> str:
    return f'<html><head><meta charset="{charset}"></head><body>'


@pytest.mark.parametrize(
    ("payload", "declared", "text", "charset"),
    [
        (codecs.BOM_UTF8 + GERMAN.encode(), "koi8-r", GERMAN, "utf-8"),
        (codecs.BOM_UTF16_LE + GERMAN.encode("utf-16-le"), "utf-8", GERMAN, "utf-16-le"),
        (codecs.BOM_UTF16_BE + GERMAN.encode("utf-16-be"), None, GERMAN, "utf-16-be"),
        (RUSSIAN.encode("koi8-r"), "KOI8-R", RUSSIAN, "koi8-r"),
        (GERMAN.encode("latin-1"), "latin1", GERMAN, "cp1252"),
        ("“quoted”".encode("cp1252"), "ISO-8859-1", "“quoted”", "cp1252"),
        ((meta("windows-1251") + RUSSIAN).encode("cp1251"), None, meta("windows-1251") + RUSSIAN, "cp1251"),
        ((meta("koi8-r") + GERMAN).encode("utf-8"), "utf-8", meta("koi8-r") + GERMAN, "utf-8"),  # header wins
        ((meta("koi8-r") + RUSSIAN).encode("cp1251"), "windows-1251", meta("koi8-r") + RUSSIAN, "cp1251"),
        ("①㈱髙～".encode("cp932"), "Shift_JIS", "①㈱髙～", "cp932"),  # WHATWG's Shift_JIS is windows-31j
        ("똠방각하".encode("cp949"), "euc-kr", "똠방각하", "cp949"),
        ("“ไทย”".encode("cp874"), "tis-620", "“ไทย”", "cp874"),
        ((meta("x-user-defined") + "café").encode("cp1252"), None, meta("x-user-defined") + "café", "cp1252"),
        ("日本語".encode("iso2022_jp"), None, "日本語", "iso2022_jp_ext"),
        (("<p>" + GERMAN).encode("utf-16-be"), "utf-16", "<p>" + GERMAN, "utf-16-be"),
        (
            b"<p>plain ASCII under a label that is nonsense",
            "utf-16",
            "<p>plain ASCII under a label that is nonsense",
            "utf-8",
        ),
        ((meta("utf-16") + GERMAN).encode("utf-8"), None, meta("utf-16") + GERMAN, "utf-8"),
        (GERMAN.encode(), None, GERMAN, "utf-8"),
        (GERMAN.encode(), "no-such-charset", GERMAN, "utf-8"),
        (GERMAN.encode(), "utf8'; \x00", GERMAN, "utf-8"),
        (RUSSIAN.encode("cp1251"), "utf-8", RUSSIAN, "cp1251"),  # a server's wrong default
        (("<p>" + GERMAN).encode("utf-16-le"), None, "<p>" + GERMAN, "utf-16-le"),
        ("日本語テキスト".encode("shift_jis"), "x-sjis", "日本語テキスト", "cp932"),
        ("中文".encode("gb18030"), "gb2312", "中文", "gb18030"),
        (b"", None, "", "utf-8"),
    ],
)
def test_decode(payload, declared, text, charset) -> None:
    assert decode(payload, declared) == (text, charset, 0)


def test_http_equiv_and_late_meta() -> None:
    head = b'<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">'
    assert decode(b"<!-- " + b"x" * 1000 + b" -->" + head + RUSSIAN.encode("koi8-r"), None).charset == "koi8-r"


def test_holes_of_windows_1252() -> None:
    assert decode(b"caf\xe9 \x81\x93", "windows-1252").text == "café \x81“"


def test_a_page_cut_in_a_character_keeps_its_charset() -> None:
    decoded = decode(GERMAN.encode()[:-36], "utf-8")
    assert decoded.charset == "utf-8"
    cut = decode((GERMAN + "ü").encode()[:-1], "utf-8")
    assert (cut.charset, cut.replaced, cut.text) == ("utf-8", 1, GERMAN + "\ufffd")
    text = "日本語のテキスト" * 2  # of which the guess would say ISO 8859-7
    cut = decode(text.encode("euc_kr")[:-1], "euc-kr")
    assert (cut.charset, cut.replaced, cut.text[:-1]) == ("cp949", 1, text[:-1])


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=20)))
def test_decode_never_raises(payload, declared) -> None:
    decoded = decode(payload, declared)
    assert decoded.text.encode("utf-8", "surrogatepass") is not None and decoded.replaced >= 0


@pytest.mark.parametrize("label", ["hex", "base64", "rot13", "zip", "unicode_escape", "idna", "", "\0", "ü"])
def test_python_codecs_that_are_no_charsets(label) -> None:
    assert codec(label) is None


JAPANESE = "このページは、町の図書館が毎週の催しについて書いたものです。子どもも大人も、どうぞお越しください。"
KOREAN = "이 페이지는 마을 도서관이 매주 열리는 행사에 대해 쓴 것입니다. 아이들도 어른들도 모두 오시기 바랍니다."
SIMPLIFIED = "这个网页是镇上的图书馆写的，说的是每个星期的活动。我们欢迎大人和孩子都来，也可以带着朋友。"
TRADITIONAL = "這個網頁是鎮上的圖書館寫的，說的是每個星期的活動。我們歡迎大人和孩子都來，也可以帶著朋友。"
TWO_BYTES = [
    (JAPANESE, "shift_jis"),
    (JAPANESE, "euc_jp"),
    (KOREAN, "euc_kr"),
    (SIMPLIFIED, "gbk"),
    (SIMPLIFIED, "gb18030"),
    (TRADITIONAL, "big5"),
    (JAPANESE, "utf-8"),
    (RUSSIAN, "utf-8"),
    (GERMAN, "utf-8"),
    ("A café, © 2020", "utf-8"),
    ("Dvořák’s – naïve", "utf-8"),
]
WRONG = ["ISO-8859-1", "windows-1252", "us-ascii", "iso-8859-15", "windows-1251", "windows-1250", "koi8-r", None]


@pytest.mark.parametrize(("text", "charset"), TWO_BYTES)
@pytest.mark.parametrize("label", WRONG)
@pytest.mark.parametrize("where", ["header", "meta"])
def test_text_of_several_bytes_beats_a_label_that_any_bytes_agree_with(text, charset, label, where) -> None:
    page = f"{meta(label) if where == 'meta' and label else '<body>'}<p>{text}</p>"
    assert decode(page.encode(charset), label if where == "header" else None).text == page


@pytest.mark.parametrize(("text", "charset"), [*TWO_BYTES[:6], TWO_BYTES[7]])
@pytest.mark.parametrize("label", ["gb2312", "big5", "euc-jp", "euc-kr", "shift_jis", "utf-8"])
def test_and_a_wrong_label_of_two_bytes(text, charset, label) -> None:
    assert decode((text * 2).encode(charset), label).text == text * 2


def test_one_bad_byte_or_a_cut_does_not_change_the_charset() -> None:
    for text, charset in TWO_BYTES[:9]:
        whole = f"<p>{text * 3}</p>".encode(charset)
        for damaged in (whole[:-5], whole[:-6], whole.replace(b"</p>", b"\xff</p>")):
            decoded = decode(damaged, "iso-8859-1")
            assert decoded.text[:40] == f"<p>{text * 3}"[:40] and decoded.replaced <= 1


LATIN = {
    "cp1252": [
        "L’été dernier, à Orléans, les élèves ont visité le château : « Ça m’a plu », dit Zoé, âgée de 12 ans.",
        "Grüße aus Köln: Größe, Öl, Ärger, Übung – „schön“ und süß.",
        "El niño comió piñón y bebió café; ¿qué más querría? ¡Ánimo, señor Muñoz!",
        "Não há coração que não se alegre com as canções da manhã; à noite, açaí e pão.",
        "Smörgåsbord på Åland: räksmörgås, kött, Ängelholm, ål och kräftor.",
        "Það er ekki hægt að þýða öll íslensk orð; Þór og Æsir búa í Ásgarði.",
        "It’s the “best” café — don’t you think? That’s £5 or €6 … I’d say it’s fine",
        "’n Mens kan nie sê dat dit ’n probleem is nie; hy’t gesê môre",
        "CAFÉ",
        "ÉTÉ À L’ÎLE",
    ],
    "cp1250": [
        "Příliš žluťoučký kůň úpěl ďábelské ódy. Ľúbostný šesťmesačný",
        "Zażółć gęślą jaźń, pchnąć w tę łódź jeża",
    ],
    "cp1251": [RUSSIAN, "Съешь же ещё этих мягких французских булок, да выпей чаю", "Щастя, їжак, ґанок, є, і"],
    "koi8-r": [RUSSIAN],
    "cp1253": ["Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Γρήγορη αλεπού"],
    "cp1254": ["Pijamalı hasta yağız şoföre çabucak güvendi. İstanbul’da"],
    "cp1255": ["דג סקרן שט בים מאוכזב ולפתע מצא חברה"],
    "cp1256": ["نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر"],
    "cp1257": ["Įlinkdama fechtuotojo špaga sublykčiojusi pragręžė apvalų arbūzą", "Glāžšķūņa rūķīši dzērumā čiepj"],
    "cp874": ["เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน จงฝ่าฟันพัฒนาวิชาการ"],
}


@pytest.mark.parametrize(("charset", "text"), [(charset, text) for charset, texts in LATIN.items() for text in texts])
@pytest.mark.parametrize("times", [1, 3, 50])
def test_text_of_one_byte_is_not_read_as_any_of_several(charset, text, times) -> None:
    payload = "\n".join([f"<p>{text}</p>"] * times).encode(charset)
    own = "windows-" + charset[2:] if charset.startswith("cp") else charset
    assert decode(payload, own).text == payload.decode(charset)
    for label in (None, "ISO-8859-1", "utf-8"):
        assert not [ch for ch in decode(payload, label).text if ch > "\u2e80"], label


def test_a_label_of_two_bytes_over_accents_inside_words_is_not_believed() -> None:
    text = LATIN["cp1252"][0] * 3
    for label in ("gb2312", "big5", "shift_jis", "euc-kr"):
        assert decode(text.encode("cp1252"), label).text == text


@pytest.mark.parametrize(
    ("head", "label"),
    [
        (b"<meta charset=koi8-r>", "koi8-r"),
        (b"<META CHARSET = 'koi8-r' />", "koi8-r"),
        (b'<meta/charset="koi8-r">', "koi8-r"),
        (b'<meta name=x charset="koi8-r" charset=big5>', "koi8-r"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">', "koi8-r"),
        (b"<meta content='text/html; charset = \"koi8-r\"' http-equiv=content-type>", "koi8-r"),
        (b'<meta content="text/html; charset=koi8-r">', None),
        (b'<meta name="description" content="set charset=koi8-r in the header">', None),
        (b'<meta http-equiv="refresh" content="0; url=/?charset=koi8-r">', None),
        (b'<meta property="og:x" data-charset="koi8-r">', None),
        (b'<div charset="koi8-r"><a href="?charset=koi8-r">', None),
        (b"<!-- <meta charset=koi8-r> -->", None),
        (b"<!-- a > b <meta charset=koi8-r> --><meta charset=big5>", "big5hkscs"),
        (b"<!--><meta charset=koi8-r>", "koi8-r"),
        (b"<!-- never closed <meta charset=koi8-r>", None),
        (b"<script>var x = '<meta charset=koi8-r>'</script>", None),
        (b"<script>var x = '<meta charset=koi8-r>'</script><meta charset=big5>", "big5hkscs"),
        (b"<title>what <meta charset=koi8-r> does</title>", None),
        (b"<style>/* <meta charset=koi8-r> */</style>", None),
        (b"<meta name='a > b' content='<meta charset=koi8-r>'><meta charset=big5>", "big5hkscs"),
        (b"<meta content='cut <meta charset=koi8-r> ", None),
        (b"<metadata charset=koi8-r>", None),
        (b"<? <meta charset=koi8-r>", None),
        (b"<!doctype <meta charset=koi8-r>", None),
        (b"<meta charset=koi8-r", None),
        (b"<meta charset=utf-16le>", "utf-8"),
        (b"<meta charset=x-user-defined>", "cp1252"),
        (b"<meta charset=nonsense><meta charset=koi8-r>", "koi8-r"),
        (b"<meta charset=nonsense http-equiv=content-type content='charset=big5'>", None),
        (b'<?xml version="1.0" encoding="koi8-r"?><html>', "koi8-r"),
        (b'<?xml version="1.0" encoding="koi8-r"?><meta charset=big5>', "big5hkscs"),
        (b'<?xml version="1.0"?><p encoding="koi8-r">', None),
        (b"charset=koi8-r", None),
        (b"", None),
    ],
)
def test_prescan(head, label) -> None:
    assert prescan(head) == label


def test_what_is_no_declaration_does_not_decide() -> None:
    for head in (
        '<meta name=description content="charset=windows-1251">',
        "<!-- <meta charset=gbk> -->",
        "<p charset=koi8-r>",
    ):
        for text in ("café", "naïve café, très cher"):
            page = f"<html><head>{head}</head><body>{text}"
            assert decode(page.encode(), None).text == page
            assert decode(page.encode("cp1252"), "windows-1252").text == page


def test_a_meta_behind_the_first_kilobyte_still_counts_where_no_header_says_otherwise() -> None:
    page = ("<script>" + "x" * 3000 + "</script>" + meta("iso-8859-2") + "Zażółć gęślą jaźń").encode("iso-8859-2")
    assert decode(page, None).charset == "iso8859-2"
    assert decode(page, "windows-1252").charset == "cp1252"


@pytest.mark.parametrize(
    "unit",
    [
        b"<", b"<!--", b"<meta ", b"<meta a='", b'<meta a="b', b"<a b=c ", b"<script>", b"</", b"<!", b"<?", b"<title>",
        b"<meta charset=x>", b"a=", b"<p ' ", b"<meta content='charset charset= charset=\"'>", b" ", b"\xe9", b"\x1b$",
        b"\x82\xa0", b"<p =\">",
    ],
)  # fmt: skip
def test_the_prescan_takes_steps_in_proportion_to_its_input(unit, counted_lines) -> None:
    """Lines that are run; a pattern by itself is linear, because none of its repeats gives back what it took."""
    steps = [
        counted_lines("gristmill.stages.text.charset_labels", lambda n=n: prescan(unit * (n * 4096 // len(unit))))
        for n in (1, 2, 4)
    ]
    assert steps[1] <= 2.2 * steps[0] + 50 and steps[2] <= 4.4 * steps[0] + 100, steps


def test_real_pages_are_decoded(shared_data) -> None:
    from gristmill.stages.containers import ReadConfig, Record, read, scan

    path = shared_data / "2_pages" / "pages.warc.gz"
    with path.open("rb") as stream:
        spans = scan(stream, "warc").spans.slice(0, 60)
    for item in read(lambda offset: path.open("rb"), spans, "warc", ReadConfig()):
        if isinstance(item, Record) and item.kind == "page":
            decoded = decode(item.payload, item.charset)
            assert decoded.replaced * 1000 <= len(decoded.text) and len(extract(decoded.text, ExtractConfig())) > 50
