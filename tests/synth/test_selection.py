"""What is selected of samples, and what pairs are made: functions of verdicts alone."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from gristmill.synth.bias import Counts, difference, share, thinning
from gristmill.synth.groups import groups_of, length, names, pronouns
from gristmill.synth.intervals import clustered, wilson
from gristmill.synth.preferences import Chain, best_pair, first_divergence, steps_of
from gristmill.synth.selection import Balance, Candidate, Selection, select

A, R, U = "accepted", "rejected", "undecided"


# Pairs


def test_steps_are_lines_sentences_or_what_stands_between_semicolons():
    assert steps_of("3 + 4 = 7\n\n 7 * 2 = 14 \n#### 14") == ["3 + 4 = 7", "7 * 2 = 14", "#### 14"]
    assert steps_of("She has 3. She buys 4.5 more. Now 7.5") == ["She has 3.", "She buys 4.5 more.", "Now 7.5"]
    assert steps_of("1 + 1 = 2 ; 2 * 2 = 4 #### 4") == ["1 + 1 = 2", "2 * 2 = 4 #### 4"] and steps_of(" \n") == []


def test_a_pair_parts_as_late_as_possible():
    accepted = [Chain(4, "a\nb\nc\n#### 1"), Chain(1, "x\n#### 1")]
    rejected = [Chain(0, "a\nz\n#### 2"), Chain(3, "a\nb\ny\n#### 2"), Chain(2, "q")]
    pair = best_pair(accepted, rejected)
    assert (pair.chosen.sample, pair.rejected.sample, pair.step, pair.steps) == (4, 3, 2, 4)
    assert best_pair(accepted, []) is None is best_pair([], rejected)
    tie = best_pair([Chain(1, "a"), Chain(0, "b")], [Chain(3, "c"), Chain(2, "d")])
    assert (tie.chosen.sample, tie.rejected.sample) == (0, 2), "whatever the order of the input"


def test_where_one_chain_begins_the_other_they_part_at_its_end():
    assert first_divergence(["a", "b"], ["a", "b", "c"]) == 2 and first_divergence([], ["a"]) == 0


# Selection


def candidate(id: str, problem: str, text: str, verdict: str = A, group: str = "easy", contaminated: bool = False):
    return Candidate(id, problem, verdict, None, text, {"difficulty": group}, contaminated)


def test_equal_chains_count_once_and_a_problem_is_capped():
    chains = [candidate(f"p{i}", "p", text) for i, text in enumerate(["x  1", "x 1\n", "y", "z", "w"])]
    chains += [candidate("r", "p", "v", R), candidate("u", "p", "u", U), candidate("c", "p", "k", contaminated=True)]
    chains += [candidate("e", "p", " \n")]
    reasons, costs = select(chains, Selection(per_problem=3))
    assert Counter(reasons.values()) == {
        None: 3, "duplicate_chain": 1, "per_problem": 1, R: 1, U: 1, "contaminated": 1, "empty": 1
    }  # fmt: skip
    assert costs == [] and len({reasons["p0"], reasons["p1"]}) == 2, "one of the two that are equal"


def test_what_is_selected_depends_on_no_order_and_another_seed_selects_others():
    chains = [candidate(f"s{i}", f"p{i % 5}", f"text {i}") for i in range(60)]
    first = select(chains, Selection(2))[0]
    shuffled = random.Random(1).sample(chains, len(chains))
    assert select(shuffled, Selection(2))[0] == first
    assert select(chains, Selection(2, seed=1))[0] != first


def test_shares_hold_and_tell_what_they_cost():
    chains = [candidate(f"e{i}", f"e{i}", "x", group="easy") for i in range(90)]
    chains += [candidate(f"h{i}", f"h{i}", "x", group="hard") for i in range(10)]
    reasons, costs = select(chains, Selection(balance=Balance("difficulty", {"easy": 0.5, "hard": 0.5})))
    kept = Counter(id[0] for id, reason in reasons.items() if reason is None)
    assert kept == {"e": 10, "h": 10} and Counter(reasons.values())["balance"] == 80
    assert [(cost.group, cost.before, cost.after) for cost in costs] == [("easy", 90, 10), ("hard", 10, 10)]


def test_without_shares_those_of_the_problems_are_held():
    """Hard problems are half of all, a tenth of what was right, and three quarters of what was drawn."""
    chains = [candidate(f"e{i}", f"e{i}", "x", group="easy") for i in range(50)]
    chains += [candidate(f"h{i}", f"h{i}", "x", A if i < 5 else R, group="hard") for i in range(50)]
    chains += [candidate(f"h{i}/{n}", f"h{i}", "x", R, group="hard") for i in range(50) for n in range(2)]
    reasons, _ = select(chains, Selection(balance=Balance("difficulty")))
    assert Counter(id[0] for id, reason in reasons.items() if reason is None) == {"e": 5, "h": 5}


def test_a_group_of_which_nothing_is_there_leaves_nothing():
    chains = [candidate(f"e{i}", f"e{i}", "x") for i in range(4)]
    reasons, costs = select(chains, Selection(balance=Balance("difficulty", {"easy": 0.5, "hard": 0.5})))
    assert set(reasons.values()) == {"balance"} and [cost.after for cost in costs] == [0, 0]


# What it does to groups


def test_groups_of_a_question():
    known = {"ana": "a", "tom": "b"}
    assert pronouns("She sold hers.") == "she" and pronouns("He gave her his.") == "several"
    assert pronouns("The mill stands.") == "none" and pronouns("Themes there") == "none"
    assert names("Ana and Tom walk", known) == "several" and names("TOM walks", known) == "b"
    assert names("Where will she go?", {"will": "b"}) == "none" and names("Will goes", {"will": "b"}) == "b"
    assert length("x" * 99) == "0-99" and length("x" * 100) == "100-199" and length("x" * 9999) == "800 and more"
    german = groups_of("Sie hat ihn.", "", "de", "easy", known)
    assert german["pronouns"] == german["names"] == "unknown" and german["domain"] == "unknown"


def test_intervals_of_shares():
    assert share(0, 0) == (0.0, 0.0, 1.0) and share(5, 10) == (0.5, 0.2366, 0.7634)
    assert share(0, 100)[1] == 0 < share(0, 100)[2] < 0.04
    value, low, high = difference((56, 70), (48, 80))  # Newcombe's own example (1998): .2, .0524 to .3339
    assert (value, low, high) == (0.2, pytest.approx(0.0524, abs=2e-4), pytest.approx(0.3339, abs=2e-4))


def test_samples_of_a_problem_are_no_independent_draws():
    """Forty samples of one problem each are worth more than forty of four problems; as many as there are problems."""
    apart = [({"domain": name}, Counts(1, 1, 1)) for name in "xy" * 20]
    together = [({"domain": name}, Counts(10, 10, 10)) for name in "xyxy"]
    assert thinning(apart)[0].share_proposed == (0.5, *(round(end, 4) for end in wilson(20, 40)))
    assert thinning(together)[0].share_proposed == (0.5, *(round(end, 4) for end in wilson(2, 4)))
    uneven = [({"domain": name}, Counts(count, 0, 0)) for name, count in (("x", 40), ("y", 2), ("y", 2), ("y", 2))]
    low, high = thinning(uneven)[0].share_proposed[1:]
    assert (low, high) == tuple(round(end, 4) for end in clustered(40, 1600, 46, 1612))
    assert high - low > 1.5 * (wilson(40, 46)[1] - wilson(40, 46)[0])
    assert thinning(uneven)[0].share_accepted == (0.0, 0.0, 1.0)


def test_a_group_that_selection_thins_out_is_named_and_chance_is_not():
    thin = [({"domain": "hard"}, Counts(4, 1, int(i % 5 == 0))) for i in range(100)]
    thick = [({"domain": "easy"}, Counts(4, 3, int(i % 5 != 0))) for i in range(100)]
    easy, hard = thinning(thin + thick)
    assert (hard.group, hard.thinned, easy.thinned) == ("hard", True, False)
    assert hard.share_proposed[0] == 0.5 and hard.share_accepted[0] == 0.25 and hard.share_selected[0] == 0.2
    assert hard.difference[0] == pytest.approx(-0.6) and hard.difference[2] < 0
    few = [({"domain": name}, Counts(4, 2, int(i == 0))) for i, name in enumerate("xxyy")]
    assert not any(row.thinned for row in thinning(few)), "four problems say nothing"


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_judged_and_selected_every_figure_of_it_is_finite(seed):
    """Problems without a question, without samples, of which nothing or all is accepted, nothing or all selected."""
    rng = random.Random(seed)
    problems = {
        str(number): groups_of(rng.choice(["", "She has 3."]), "", rng.choice(["", "de"]), rng.choice(["", "easy"]), {})
        for number in range(rng.randrange(5))
    }
    samples = [
        Candidate(f"{problem}.{n}", problem, rng.choice([A, A, "undecided"]), None, rng.choice(["", "a", "b"]), groups)
        for problem, groups in problems.items()
        for n in range(rng.randrange(4))
    ]
    balance = rng.choice([None, Balance(), Balance("language"), Balance(shares={"easy": 1.0, "": 0.0})])
    reasons, costs = select(samples, Selection(2, balance))
    counts = {problem: [sample for sample in samples if sample.problem == problem] for problem in problems}
    rows = thinning(
        (
            groups,
            Counts(len(own), sum(each.verdict == A for each in own), sum(reasons[each.id] is None for each in own)),
        )
        for groups, own in zip(problems.values(), counts.values(), strict=True)
    )
    figures = [number for row in (*rows, *costs) for value in vars(row).values() for number in _numbers(value)]
    assert all(math.isfinite(number) for number in figures) and bool(rows) == bool(problems)
    assert reasons.keys() == {sample.id for sample in samples}


def _numbers(value: object) -> list[float]:
    return [each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, int | float)]
