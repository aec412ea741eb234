"""The shared engine: a sample is a function of run, problem and number alone, whoever else asks and when."""

from __future__ import annotations

import threading

import pytest
import serving
from serving import ToyEngine, toy_engine
from waiting import until

from gristmill.stages.generate.engines.compact import CompactEngine, EngineStopped
from gristmill.stages.generate.engines.endpoint import Endpoint, OpenAIEngine
from gristmill.stages.generate.engines.probe import probe
from gristmill.stages.generate.engines.protocol import Ask, Draws, Generation, Load
from gristmill.stages.generate.verifiers import Checks, JudgeSpec, Spent, judging, model_judge
from gristmill.synth.verify.verdict import Problem

DRAWS = Draws(max_tokens=12, seed=5)
PROBLEMS = [f"problem {i}" for i in range(6)]


@pytest.fixture
def engine():
    token_engine, tokenizer = toy_engine()
    hosted = CompactEngine(token_engine, tokenizer, DRAWS, "tiny@v1")
    yield hosted
    token_engine.gate.set()
    hosted.close()


def ask(problem: str, *samples: int) -> Ask:
    return Ask(problem, samples, f"How many cats are in {problem}?")


def by_place(samples) -> dict[tuple[str, int], Generation]:
    return {(sample.problem, sample.sample): sample for sample in samples}


def test_a_sample_depends_on_nothing_but_run_problem_and_number(engine):
    whole = by_place(engine.generate([ask(problem, 0, 1, 2) for problem in PROBLEMS]))
    assert len(whole) == 18 and len({sample.text for sample in whole.values()}) > 9
    later = by_place(engine.generate([ask(PROBLEMS[4], 2), ask(PROBLEMS[1], 1, 2)]))
    assert len(later) == 3 and all(whole[place] == sample for place, sample in later.items())
    for sample in whole.values():
        assert sample.failure is None and sample.prompt_tokens > 5 and 1 <= sample.tokens <= 12


def test_callers_share_the_slots_and_each_gets_its_own(engine):
    alone = {problem: by_place(engine.generate([ask(problem, *range(5))])) for problem in PROBLEMS[:3]}
    steps = engine.load().steps
    together: dict[str, dict] = {}

    def call(problem: str) -> None:
        together[problem] = by_place(engine.generate([ask(problem, *range(5))]))

    threads = [threading.Thread(target=call, args=(problem,)) for problem in PROBLEMS[:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
    shared = engine.load()
    assert 0 < shared.steps < steps, "slots that one caller leaves empty are another's"
    assert shared.places == shared.steps * 4 and 0 < shared.busy <= shared.held / shared.places <= 1
    assert engine.load() == Load() and Load().busy is None, "what was told is told once"


def test_what_an_engine_waited_makes_it_less_busy():
    load = Load(steps=2, places=8, held=6, worked=3.0) + Load(steps=2, places=8, held=8, worked=3.0, waited=2.0)
    assert load == Load(4, 16, 14, 6.0, 2.0) and load.busy == 14 / 16 * 6 / 8


def test_a_prompt_that_does_not_fit_is_a_failure_and_the_others_are_samples(engine):
    long = Ask("long", (0, 1), "cat " * 600)
    samples = by_place(engine.generate([long, ask("short", 0)]))
    assert [samples["long", n].failure for n in (0, 1)] == ["too_long"] * 2
    assert "the context is 512" in samples["long", 0].detail and samples["short", 0].failure is None


def test_an_engine_that_breaks_ends_all_who_wait_and_all_who_come(engine):
    token_engine = engine._engine
    assert isinstance(token_engine, ToyEngine)
    token_engine.gate.clear()
    met: list[BaseException] = []

    def call(problem: str) -> None:
        try:
            list(engine.generate([ask(problem, 0)]))
        except EngineStopped as error:
            met.append(error)

    threads = [threading.Thread(target=call, args=(problem,)) for problem in PROBLEMS[:3]]
    for thread in threads:
        thread.start()
    until(token_engine.held.is_set, "a step to begin")
    token_engine.broken = True
    token_engine.gate.set()
    for thread in threads:
        thread.join()
    assert len(met) == 3 and all("RuntimeError: out of memory" in str(error) for error in met)
    with pytest.raises(EngineStopped, match="the engine stopped: RuntimeError: out of memory"):
        list(engine.generate([ask("another", 0)]))


def test_a_closed_engine_answers_nobody():
    token_engine, tokenizer = toy_engine()
    hosted = CompactEngine(token_engine, tokenizer, DRAWS, "tiny@v1")
    hosted.close()
    with pytest.raises(EngineStopped, match="it was closed"):
        list(hosted.generate([ask("a", 0)]))


def test_samples_of_consecutive_numbers_are_one_request():
    assert list(Ask("a", (5, 0, 1, 2, 7), "x").runs()) == [(0, 3), (5, 1), (7, 1)]
    assert list(Ask("a", (), "x").runs()) == []


def test_what_is_neither_a_text_nor_a_failure_cannot_be():
    for wrong in ({"text": "x"}, {}, {"text": "x", "finish": "stop", "failure": "timeout"}):
        with pytest.raises(ValueError, match="either a text that ended somehow, or a failure"):
            Generation("a", 0, **wrong)


@pytest.mark.parametrize(
    ("draws", "why"),
    [
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": 0}, "at 0 all samples of a problem are one"),
        ({"top_p": 0}, "top_p=0"),
        ({"stop": ("",)}, "texts that are not empty"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_draws_that_cannot_be_are_refused(draws, why):
    with pytest.raises(ValueError, match=why):
        Draws(**draws)


def test_the_projects_own_server_passes_the_probe_and_answers():
    with serving.serving(max_waiting=512) as server:
        client = OpenAIEngine(Endpoint(url=f"{server.url}/v1", in_flight=8), "tiny", DRAWS)
        try:
            findings = probe(client, 512)
            samples = by_place(client.generate([ask(problem, 0, 1) for problem in PROBLEMS]))
            again = by_place(client.generate([ask(PROBLEMS[3], 1)]))
        finally:
            client.close()
    assert {finding.check: finding.kept for finding in findings} == dict.fromkeys(
        ("answers", "distinct", "n", "seed", "overlong", "usage"), True
    )
    assert len(samples) == 12 and all(sample.failure is None and sample.tokens for sample in samples.values())
    place = (PROBLEMS[3], 1)
    assert again[place].text == samples[place].text


def test_a_judge_draws_another_reply_at_another_attempt(engine):
    """The same reply would be as unreadable each time, until the attempts of its chain are spent."""
    spec = JudgeSpec(model="tiny@v1", max_tokens=12, context=256, temperature=1.0)
    ready = judging("maths", Checks(symbolic=False, judge=spec), engine)
    problem = Problem("maths", "How many?", "the empty set")
    replies = [ready.at(attempt).verify(problem, "#### none").evidence for attempt in (0, 1, 2, 0)]
    assert len(set(replies)) == 3 and replies[0] == replies[3]
    assert {ready.at(attempt).id for attempt in range(3)} == {ready.verifier.id}


def test_a_model_of_the_lake_judges_by_the_same_words_each_time(engine):
    bills: list[Spent] = []
    judge = model_judge(JudgeSpec(model="tiny@v1", max_tokens=12, context=256), engine, bills.append)
    problem = Problem("maths", "How many?", "the empty set")
    verdicts = [judge.verify(problem, "#### none") for _ in range(2)]
    assert verdicts[0] == verdicts[1], "the same prompt is answered by the same draw"
    assert (verdicts[0].reason, verdicts[0].verifier) == ("judge.unparseable_reply", "judge:tiny@v1@1")
    assert bills[0] == bills[1] and 1 <= bills[0].tokens <= 12 and bills[0].prompt_tokens > 50
    too_long = judge.verify(problem, "mill " * 900)
    assert (too_long.reason, too_long.evidence[:8]) == ("judge.engine_refused", "too_long")
