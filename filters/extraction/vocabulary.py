"""What the pass knows of HTML and of boilerplate: tags, words in attributes, phrases, stop words.

The lexicons are features, not rules: what each is worth is learned. They are hand-written from what page builders,
content systems and ad networks call their parts, mostly English and German with the commonest words of a dozen other
languages. Order matters: a group's place is its bit (columns.py), and its meaning to the trained model.

long: tables.
"""

from __future__ import annotations

TAGS = (
    # 0 is a tag that is none of these.
    "? html head body p div span a li ul ol dl dt dd table tbody thead tfoot tr td th caption h1 h2 h3 h4 h5 h6 pre "
    "code blockquote article main section header footer nav aside figure figcaption form fieldset legend label input "
    "button select option optgroup textarea script style noscript template iframe object svg math annotation "
    "annotation-xml img br hr title meta link b i em strong u s small sub sup font center address details summary "
    "video audio canvas map area embed param source track wbr base col colgroup hgroup menu dir time q cite abbr ins "
    "del mark kbd samp var tt big strike xmp noframes noembed frame picture dialog search amp-img plaintext listing "
    "applet rt rp mjx-math foreignobject"
).split()
ID = {tag: number for number, tag in enumerate(TAGS)}
BLOCKS = frozenset(
    "html body p div li ul ol dl dt dd table tbody thead tfoot tr td th caption h1 h2 h3 h4 h5 h6 pre blockquote "
    "article main section header footer nav aside figure figcaption form fieldset legend hr center address details "
    "summary hgroup menu dir listing xmp dialog search option optgroup video audio head noframes".split()
)
"""Start and end a line."""
VOID = frozenset("input img br hr meta link area embed param source track wbr base col frame amp-img".split())
RAW = frozenset("script style textarea title iframe xmp noembed noframes".split())
"""No markup in them, and no text of the page."""
HIDDEN = frozenset(
    "noscript template object svg select button canvas video audio map head dialog applet rt rp "
    "mjx-math annotation-xml annotation".split()
)
"""Text in them is not seen, or belongs to a control. A formula is seen, and has a way of its own."""
CLOSES_P = (BLOCKS - set("html body head option optgroup caption tbody thead tfoot tr td th li dd dt".split())) | {"ul"}
"""Their start ends a paragraph."""

CATEGORIES: dict[str, int] = {
    **dict.fromkeys(("td", "th"), 6),
    **dict.fromkeys(("h3", "h4", "h5", "h6"), 5),
    **dict.fromkeys(("section", "article", "main"), 11),
    **dict.fromkeys(("dt", "dd"), 9),
    **dict.fromkeys(("figcaption", "caption"), 10),
    **dict.fromkeys(("body", "html"), 12),
    **dict.fromkeys(("form", "label", "legend"), 16),
    **{"p": 1, "li": 2, "h1": 3, "h2": 4, "pre": 7, "blockquote": 8, "details": 13, "summary": 13, "center": 14},
    **{"address": 15, "header": 17, "footer": 18, "nav": 19, "aside": 20},
}
"""Kinds of tags as a feature, in an order that lets one split divide them; 0: <div> and all others."""
ANCESTORS: dict[str, str] = {
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "heading"),
    **{"article": "article", "main": "main", "header": "header", "footer": "footer", "nav": "nav", "menu": "nav"},
    **{"aside": "aside", "li": "list", "table": "table", "form": "form", "figure": "figure", "figcaption": "figure"},
    **{"blockquote": "quote", "pre": "pre", "dl": "definitions", "a": "link"},
}
"""Which bit of ANCESTORS a tag sets: columns.IN_..., in lower case."""

ATTRIBUTE_WORDS = (
    # In class, id, role, itemprop and style, whose letters alone count: all between is one "-", also at both ends.
    # 0 to 9 speak against a block.
    "nav menu breadcrumb pagin -pager toolbar skip-link -toc- -tabs- navigation topics pagenav sitemap",
    "footer -header masthead topbar copyright -legal -bottom -foot- -head- -top- contentinfo impressum",
    "sidebar side-bar -aside widget -rail- rail- -sidecol right-col rightcol col-right -secondary complementary "
    "marginal -right- -left- sidecolumn",
    "comment disqus -respond -reply discuss kommentar feedback livefyre -replies review",
    "share sharing social facebook twitter addthis -follow sharedaddy teilen whatsapp -like bookmark",
    "related recommend -more- teaser trending popular outbrain taboola readmore read-more similar -next- -prev- promo "
    "latest recent -also- zum-thema weitere archive see-also linklist mehr-",
    "-ad- -ads- advert sponsor banner anzeige werbung -adv- adsense dfp- doubleclick googlead",
    "cookie modal popup login newsletter subscri signup sign-up overlay consent -search gdpr paywall -form register "
    "lightbox",
    "byline author -date meta timestamp dateline published -info- -tags -tag- categor -tagged posted credit",
    "hidden -hide- invisible screen-reader sr-only visually- display-none noprint no-print print-only print-none "
    "mobile-only -collapse",
    # 10, 11 and 13 speak for it.
    "article entry -post- -post story blog hentry artikel beitrag",
    "content -main text- -text -body maincol primary inhalt",
    "caption figure image gallery photo -media slideshow carousel slider video player -foto bild",
    "articlebody entry-content post-content article-content article-body story-body content-body post-body entry-body "
    "article-text articletext storycontent -prose markdown mw-parser-output artikeltext article-main rich-text "
    "richtext body-text post-text",
    "infobox navbox reference toc-list mw-editsection footnote hatnote catlinks metadata portal",
    # What renderers of formulas draw beside the formula, which is not seen; and a picture that is a formula.
    "katex-html mathjax-preview mathjax-display mathjax-svg mathjax- mjx-chtml",
    "-latex- -tex- mathtex mwe-math",
)
PHRASES = (
    # Anywhere in a block, in lower case; commas part them.
    "copyright,©,all rights reserved,alle rechte,tous droits,impressum,datenschutz,privacy policy,terms of,"
    "nutzungsbedingungen,agb,reserved.,mentions légales,aviso legal,powered by",
    "share,tweet,facebook,twitter,pinterest,whatsapp,linkedin,teilen,drucken,partager,compartir,google+,e-mail,"
    "email this,print,udostępnij,rss,instagram,follow us,like this,gefällt mir",
    "kommentar,comment,antworten,reply,leave a,schreib,says:,sagt:,log in,login,anmelden,registrier,sign up,sign in,"
    "abonnieren,subscribe,newsletter,einloggen,commentaire,comentario",
    "related,read more,weiterlesen,mehr zum,mehr auf,lesen sie auch,lesen sie mehr,das könnte,auch interess,more from,"
    "you may,recommended,ähnliche,weitere,popular,most read,meistgelesen,trending,see also,lire aussi,à lire,previous,"
    "next,zurück,nächste,vorherige,older post,newer post,leer más,te puede,czytaj,zobacz",
    "cookie,anzeige,werbung,advertis,sponsored,publicidad,publicité,javascript,browser",
    "posted,published,veröffentlicht,updated,aktualisiert,kategor,categor,tags:,tagged,schlagw,filed under,von ,by ,"
    "autor,author,uhr,min read,lesezeit,foto:,photo:,quelle:,source:,bild:,image:,credit,getty,dpa",
)
STOP_WORDS = """
the be to of and a in that have i it for not on with he as you do at this but his by from they we say her she or an will
my one all would there their what so up out if about who get which go me when make can like time no just him know take
people into year your good some could them see other than then now look only come its over think also back after use two
how our work first well way even new want because any these give day most us is was are were been has had
der die das und in den von zu mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat dass sie
nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr durch man sein
wurde sei hatte kann gegen vom können schon wenn habe seine ihre dann unter wir soll ich eines jahr zwei jahren diese
dieser wieder keine uhr seiner worden will zwischen immer was sagte
de la que el en y a los se del las un por con no una su para es al lo como más pero sus le ya o este sí porque esta
entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante todos uno les ni contra otros ese eso
ante ellos e esto mí antes algunos qué unos yo otro otras otra él tanto esa estos
le et les des en du une est pour qui dans par plus pas au sur ne ce il sont avec son ses ou mais on vous sa leur cette
été aux ces tout même elle fait ont être aussi bien je sans deux peut
di e che in è per sono non si da come i della dei nel più anche ha alla gli ma delle questo suo dal
do em um com não uma os na as dos mas ao ele das à seu sua quando muito já eu só pelo pela até isso
w z się nie że jest jak po za od przez ale dla są tym co tak czy oraz już tylko jego ich być może został także który
która
и в не на я что он с как это по но они мы из у к за от так о же все бы его для то было только был вы или
van het een dat op te zijn met voor niet aan om als dan maar ook bij nog uit
ja ei että oli hän mutta ovat kun myös joka och att det som är på av inte till har ett men jag
"""
"""The commonest words of 13 languages, as one set: that a text has many of any language's is what counts."""
