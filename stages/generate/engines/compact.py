"""The engine `compact`: the project's own, with a model of the lake, hosted by a thread that several callers share.

All requests go into one engine, whoever asks: its slots are refilled as long as anybody has something waiting. A
sample's random numbers are keyed by run, problem and number, and the engine promises that its tokens depend on nothing
else (`model.generate.engine`): not on the slot, on what is generated beside it, or on an interruption.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gristmill.model.processing.chat.conversation import Conversation, Turn, prompt
from gristmill.model.processing.text import Tokenizer
from gristmill.stages.generate.engines.protocol import Ask, Draws, Generation, Load

if TYPE_CHECKING:  # torch takes seconds to import, and who plans a run needs none
    from gristmill.model.generate.engine import Completion, Request
    from gristmill.model.generate.engine import Engine as TokenEngine


class EngineStopped(RuntimeError):
    """The engine was closed, or broke, while samples were waited for."""


def _stopped(reason: BaseException) -> EngineStopped:
    """What callers are told, whether they waited when the engine ended or come afterwards."""
    if isinstance(reason, EngineStopped):
        return EngineStopped(f"the engine stopped: {reason}")
    return EngineStopped(f"the engine stopped: {type(reason).__name__}: {reason}")


class _Meter:
    """Counts how full an engine is. Whoever takes a count gets what was counted since the last one was taken, so that
    the counts of all pieces of work add up to those of the engine."""

    def __init__(self, slots: int) -> None:
        self._slots, self._lock, self._load = slots, threading.Lock(), Load()

    def stepped(self, held: int, seconds: float) -> None:
        """One step, in which so many slots were held."""
        held = min(held, self._slots)  # a slot that is refilled within a step was held once
        self._add(Load(steps=1, held=held, places=self._slots, worked=seconds))

    def waited(self, seconds: float) -> None:
        """Nothing was asked for."""
        self._add(Load(waited=seconds))

    def _add(self, load: Load) -> None:
        with self._lock:
            self._load += load

    def taken(self) -> Load:
        """What was counted since."""
        with self._lock:
            load, self._load = self._load, Load()
            return load


@dataclass(eq=False)
class _Caller:
    """Who waits for completions: they are put here as they end, or the error that ends all."""

    requests: list[Request]
    answers: queue.SimpleQueue[Completion | BaseException] = field(default_factory=queue.SimpleQueue)


class CompactEngine:
    """Generates with an engine of `model.generate`, whose prompts are `tokenizer`'s in the chat template. `about`: what
    the model is called in ledgers."""

    def __init__(self, engine: TokenEngine, tokenizer: Tokenizer, draws: Draws, about: str) -> None:
        from gristmill.model.generate.sampling import Sampling
        from gristmill.model.processing.detokenize import decoder

        self._engine, self._tokenizer, self._draws, self._about = engine, tokenizer, draws, about
        self._sampling = Sampling(draws.max_tokens, draws.temperature, draws.top_p, draws.stop)
        self._decode: Callable[[Sequence[int]], str] = decoder(tokenizer)
        self._meter = _Meter(engine.options.max_num_seqs)
        self._inbox: queue.SimpleQueue[_Caller | None] = queue.SimpleQueue()
        self._ended: BaseException | None = None  # why nothing is generated any more
        self._began = False  # whether anything was asked for yet
        self._lock = threading.Lock()  # of `_ended` and of what is put into the inbox
        self._thread = threading.Thread(target=self._host, name="engine", daemon=True)
        self._thread.start()

    @property
    def about(self) -> str:
        """The model's version."""
        return self._about

    def generate(self, asks: Iterable[Ask]) -> Iterator[Generation]:
        """As `Engine.generate`. Raises MissingToken for a tokenizer without the template's tokens, EngineStopped, and
        what the engine raised, such as torch.OutOfMemoryError."""
        caller, wanted = _Caller([]), 0
        for ask in asks:
            tokens = self._prompt(ask)
            if len(tokens) + self._draws.max_tokens > self._engine.options.max_model_len:
                yield from self._too_long(ask, len(tokens))
                continue
            caller.requests += self._requests(ask, tokens)
            wanted += len(ask.samples)
        with self._lock:
            self._check_runs()
            self._inbox.put(caller)
        for _ in range(wanted):
            answer = caller.answers.get()
            if isinstance(answer, BaseException):
                raise _stopped(answer) from answer
            yield self._generation(answer)

    def load(self) -> Load:
        """As `Engine.load`."""
        return self._meter.taken()

    def close(self) -> None:
        """Ends the thread after the step that it is in."""
        with self._lock:
            self._ended = self._ended or EngineStopped("it was closed")
            self._inbox.put(None)
        self._thread.join()

    def _check_runs(self) -> None:
        if self._ended is not None:
            raise _stopped(self._ended) from self._ended

    def _prompt(self, ask: Ask) -> tuple[int, ...]:
        turns = [Turn("user", ask.prompt)]
        if ask.system is not None:
            turns.insert(0, Turn("system", ask.system))
        return tuple(self._tokenizer.encode([prompt(Conversation(tuple(turns)))]).ids.tolist())

    def _requests(self, ask: Ask, tokens: tuple[int, ...]) -> Iterator[Request]:
        """A prompt is computed once for consecutive samples."""
        from gristmill.model.generate.engine import Request

        for first, count in ask.runs():
            yield Request(self._draws.key(ask.problem), tokens, self._sampling, n=count, first=first)

    def _too_long(self, ask: Ask, prompt_tokens: int) -> Iterator[Generation]:
        room = self._engine.options.max_model_len
        detail = f"{prompt_tokens} tokens of prompt and {self._draws.max_tokens} to generate: the context is {room}"
        for sample in ask.samples:
            yield Generation(ask.problem, sample, failure="too_long", detail=detail, prompt_tokens=prompt_tokens)

    def _generation(self, completion: Completion) -> Generation:
        request = completion.request
        assert completion.finish_reason is not None
        return Generation(
            problem=request.key.partition("/")[2],
            sample=completion.number,
            text=completion.text(self._decode, self._engine.model.config.text.eos_token_id),
            finish=completion.finish_reason,
            prompt_tokens=len(request.tokens),
            tokens=len(completion.tokens),
        )

    def _host(self) -> None:
        """The thread: takes what comes, makes steps while there is something to do, and hands out what ended."""
        owners: dict[int, tuple[_Caller, Completion]] = {}  # by identity of the completion, which is kept alive
        try:
            while self._take(owners):
                if self._ended is not None:
                    raise self._ended
                began = time.monotonic()
                grown = self._engine.step()
                self._meter.stepped(len(grown), time.monotonic() - began)
                for completion in grown:
                    if completion.finish_reason:
                        caller, _ = owners.pop(id(completion))
                        caller.answers.put(completion)
        except BaseException as error:  # whatever it is: those who wait have to hear of it
            self._end(error, owners)

    def _take(self, owners: dict[int, tuple[_Caller, Completion]]) -> bool:
        """Submits what came; waits for something where nothing is left to do. False: it was closed."""
        while True:
            began, waits = time.monotonic(), self._engine.idle
            try:
                caller = self._inbox.get(block=waits)
            except queue.Empty:
                return True
            if waits and self._began:
                self._meter.waited(time.monotonic() - began)
            self._began = True
            if caller is None:
                raise EngineStopped("it was closed")
            try:
                for request in caller.requests:
                    owners |= {id(completion): (caller, completion) for completion in self._engine.submit(request)}
            except BaseException as error:
                caller.answers.put(error)  # nothing of it may be under way yet, by which it would be known
                raise

    def _end(self, error: BaseException, owners: dict[int, tuple[_Caller, Completion]]) -> None:
        with self._lock:
            self._ended = self._ended or error
            waiting = {id(caller): caller for caller, _ in owners.values()}
            while not self._inbox.empty():
                if (caller := self._inbox.get()) is not None:
                    waiting[id(caller)] = caller
        for caller in waiting.values():
            caller.answers.put(error)
