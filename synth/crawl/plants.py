"""What is planted in articles for later stages: personal data and benchmark items. Notable choices:

- no value can belong to anybody: example domains, 555-01xx and drama telephone ranges, documentation address
  blocks (RFC 5737), the card networks' test numbers, the IBAN registry's examples;
- decoys (an order number that fails Luhn, a version number) are listed too: precision can be measured;
- benchmark problems are invented here; an edited leak rewords the last sentence.
"""

from dataclasses import dataclass

from gristmill.synth.articles import Article
from gristmill.synth.draw import Draw
from gristmill.synth.grammar import grammar

_CARDS = (
    "4111111111111111",
    "4242 4242 4242 4242",
    "5555-5555-5555-4444",
    "378282246310005",
    "6011111111111117",
)
_IBANS = (
    "GB82 WEST 1234 5698 7654 32",
    "DE89 3704 0044 0532 0130 00",
    "NL91ABNA0417164300",
    "FR14 2004 1010 0505 0001 3M02 606",
)
_BLOCKS = ("192.0.2", "198.51.100", "203.0.113")
_SENTENCES = {
    "email": (
        "Write to {} if you have a question about this story.",
        "The organisers can be reached at {} every day.",
    ),
    "phone": (
        "Call {} between nine and noon to book a place.",
        "Our office answers the telephone at {} on weekdays.",
    ),
    "ipv4": (
        "The old server at {} still answers, to everybody's surprise.",
        "A visitor from {} left this comment.",
    ),
    "card": (
        "In the leaflet the sample card {} is printed by mistake.",
        "Somebody typed {} into the guest book.",
    ),
    "iban": (
        "Gifts to the restoration fund go to {} with your name.",
        "The association's account is {} as before.",
    ),
    "decoy_order": ("Please quote the order number {} when you collect it.",),
    "decoy_version": ("The label says version {} of the manual.",),
}
PII_KINDS = ("email", "phone", "ipv4", "card", "iban")


@dataclass(frozen=True)
class Plant:
    """A planted value: `type` is email, phone, ipv4, card, iban or a decoy_*."""

    type: str
    value: str


@dataclass(frozen=True)
class Problem:
    """An invented word problem of the benchmark."""

    id: str
    question: str
    answer: str


def _value(kind: str, draw: Draw) -> str:
    slots = grammar("en").slots
    if kind == "email":
        first, last = draw.pick(slots["first"]).lower(), draw.pick(slots["last"]).lower()
        domain = draw.pick(("example.org", "example.com", "example.net", "mail.example.org"))
        return f"{first}{draw.pick(('.', '_', ''))}{last}@{domain}"
    if kind == "phone":
        shapes = ("(202) 555-01{:02d}", "+1 202-555-01{:02d}", "312.555.01{:02d}", "020 7946 09{:02d}")
        return draw.pick(shapes).format(draw.below(100))
    if kind == "ipv4":
        return f"{draw.pick(_BLOCKS)}.{draw.between(1, 254)}"
    if kind == "card":
        return draw.pick(_CARDS)
    if kind == "iban":
        return draw.pick(_IBANS)
    return (
        "4111111111111112" if kind == "decoy_order" else f"{draw.between(1, 9)}.{draw.between(0, 9)}.{draw.below(9)}.1"
    )


def plant_pii(article: Article, draw: Draw) -> tuple[Article, tuple[Plant, ...]]:
    """The article with one to four sentences of planted values, and what was planted."""
    kinds = draw.shuffled(PII_KINDS)[: draw.between(1, 3)]
    if draw.chance(0.25):
        kinds.append(draw.pick(("decoy_order", "decoy_version")))
    planted = []
    for kind in kinds:
        value = _value(kind, draw)
        text = draw.pick(_SENTENCES[kind]).format(value)
        article = article.with_paragraph(text, draw.between(1, len(article.paragraphs)))
        planted.append(Plant(kind, value))
    return article, tuple(planted)


def benchmark(count: int, seed: int) -> tuple[Problem, ...]:
    """Invented arithmetic problems in two or three steps."""
    problems = []
    for i in range(count):
        draw, slots = Draw("benchmark", seed, i), grammar("en").slots
        name, goods = draw.pick(slots["first"]), draw.pick(slots["food"])
        place, other = draw.pick(("market", "cellar", "kitchen", "garden shed")), draw.pick(slots["job"])
        a, b, c = draw.between(12, 90), draw.between(3, 11), draw.between(2, 6)
        question = (
            f"{name} carries {a} crates of {goods} to the {place} and gives {b} of them to a {other}. "
            f"On each of the next {c} days {name} brings {b + 2} more crates. "
            f"How many crates of {goods} are then in the {place}?"
        )
        problems.append(Problem(f"grist-demo-{i:03d}", question, str(a - b + c * (b + 2))))
    return tuple(problems)


def plant_leak(article: Article, problem: Problem, edited: bool, draw: Draw) -> Article:
    """The article with the problem's question as a paragraph: verbatim, or reworded at its end."""
    question = problem.question
    if edited:
        question = question.replace("How many", "What number of").replace("are then in", "now lie in")
    lead = draw.pick(("A riddle for the children:", "From an old schoolbook:", "The puzzle of the week:"))
    return article.with_paragraph(f"{lead} {question}", draw.between(1, len(article.paragraphs)))
