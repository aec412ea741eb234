"""The HTTP server of `grist serve`: OpenAI's chat completions, completions and transcriptions over one hosted engine.

The event loop only waits: the engine has its thread (`serve/engine.py`); requests are read, prompts encoded and answers
put together in threads of their own, large ones apart from small ones. A client that goes away, whole answer or stream,
takes its completions out of the engine. With a seed, the answer depends on request, seed and model alone; every error
has OpenAI's form, and a field that is not honoured is one (`serve/protocol.py`).
Source: the API reference of OpenAI; server-sent events as in the HTML standard, section 9.2.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from gristmill.model.generate.engine import Request as Job
from gristmill.model.generate.engine import TooLong
from gristmill.model.processing.text import Tokenizer
from gristmill.orchestration.observe.metrics import Metrics
from gristmill.orchestration.observe.requests import Noted, Observed, noted_of
from gristmill.orchestration.serve.clips import AudioLimits
from gristmill.orchestration.serve.engine import Busy, Closed, Delta, Failed, HostedEngine, Stream
from gristmill.orchestration.serve.errors import ApiError, defect, refuse, say_error, too_long, unserved
from gristmill.orchestration.serve.fetch import Fetcher
from gristmill.orchestration.serve.images import ImageLimits, fetched
from gristmill.orchestration.serve.reading import Answer, Prepared, RequestReader, WithMedia
from gristmill.orchestration.serve.wire import PATIENCE, Gone, Held, Memory, read_body, say_nothing, unless_gone

BODY_LIMIT = 8 << 20
"""Bytes of a request beside its media."""
MAX_INFLIGHT_BYTES = 2 << 30
"""That requests may hold together."""
_FETCHES = 8  # requests whose images are fetched side by side: each may hold `max_total_bytes`
_LARGE = 1 << 16  # bytes of a body from which on it waits for others of its kind alone
_SMALL_THREADS, _LARGE_THREADS = 4, 2
_LOG = logging.getLogger(__name__)


def make_app(
    hosted: HostedEngine,
    tokenizer: Tokenizer,
    name: str,
    *,
    api_key: str | None = None,
    body_limit: int | None = None,
    patience: float = PATIENCE,
    images: ImageLimits | None = None,
    fetcher: Fetcher | None = None,
    audio: AudioLimits | None = None,
    max_inflight_bytes: int = MAX_INFLIGHT_BYTES,
    request_log: logging.Handler | None = None,
) -> FastAPI:
    """Serves `hosted` as the model `name`. The engine must have been given `decode`, `model.processing`'s `decoder`.

    `api_key`: what clients send as `Authorization: Bearer`; None: none is asked for. `body_limit`: bytes of a request;
    None: `default_body_limit`. `patience`: seconds that a client may take to send a body (`serve/wire.py` has more of
    them). `images`: what a request may show to a model that sees; `fetcher`: what gets images that are named by
    http(s), None: one for the hosts of `images`; `audio`: which clips it may hear. `max_inflight_bytes`: that requests
    may hold together, in bodies, fetched images, and media as the model takes them. `request_log`: what gets a line for
    each request (`observe/requests.py`).
    `hosted` stays the caller's, to close after the server has ended.
    """
    # long: each endpoint and each kind of error is a line
    images, audio = images or ImageLimits(), audio or AudioLimits()
    reader = RequestReader(hosted, tokenizer, name, images, audio)
    limit = body_limit or default_body_limit(reader.kinds, images, audio)
    memory = Memory(max_inflight_bytes)
    service = _Service(hosted, name, reader, limit, patience, images, fetcher or Fetcher(images.hosts), memory)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    def authorized(request: Request) -> None:
        if api_key is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Headers are read as Latin-1: so they give back the bytes that were sent.
        right = secrets.compare_digest(given.strip().encode("latin-1"), api_key.encode())
        if scheme.lower() != "bearer" or not right:
            raise ApiError(401, "wrong or missing API key: send Authorization: Bearer KEY", code="invalid_api_key")

    app = FastAPI(title="grist serve", openapi_url=None, lifespan=lifespan)
    guarded = [Depends(authorized)]
    app.add_middleware(Observed, metrics=service.metrics, log=request_log)
    app.add_api_route("/health", service.health, methods=["GET"])
    app.add_api_route("/metrics", service.counts, methods=["GET"])
    app.add_api_route("/v1/models", service.models, methods=["GET"], dependencies=guarded)
    app.add_api_route("/v1/models/{model:path}", service.model, methods=["GET"], dependencies=guarded)
    app.add_api_route("/v1/chat/completions", service.chat, methods=["POST"], dependencies=guarded)
    app.add_api_route("/v1/completions", service.text, methods=["POST"], dependencies=guarded)
    app.add_api_route("/v1/audio/transcriptions", service.transcript, methods=["POST"], dependencies=guarded)
    app.add_exception_handler(ApiError, say_error)
    app.add_exception_handler(HTTPException, say_error)
    for status in (404, 405):
        app.add_exception_handler(status, say_error)
    app.add_exception_handler(Gone, say_nothing)
    app.add_exception_handler(Exception, say_error)
    return app


def default_body_limit(kinds: Collection[str], images: ImageLimits, audio: AudioLimits) -> int:
    """Bytes of a body in which whatever the limits of media allow has room: in base64, beside BODY_LIMIT of texts.
    `kinds`: of media that the model takes."""
    most = {"image": images.max_total_bytes, "audio": audio.max_total_bytes}
    return BODY_LIMIT + sum(4 * -(-most[kind] // 3) for kind in kinds)


class _Service:
    """The endpoints."""

    def __init__(
        self,
        hosted: HostedEngine,
        name: str,
        reader: RequestReader,
        body_limit: int,
        patience: float,
        images: ImageLimits,
        fetcher: Fetcher,
        memory: Memory,
    ) -> None:
        if hosted.decode is None:
            raise ValueError("the engine has no `decode`: make it with Engine(model, options, decoder(tokenizer))")
        self.hosted, self.name, self._reader = hosted, name, reader
        self._limit, self._memory = body_limit, memory
        self._patience, self._images, self._fetcher = patience, images, fetcher
        self._fetching = asyncio.Semaphore(_FETCHES)
        self._created = int(time.time())
        self._small = ThreadPoolExecutor(_SMALL_THREADS, "requests")
        self._large = ThreadPoolExecutor(_LARGE_THREADS, "large requests")
        self._whole = ThreadPoolExecutor(_LARGE_THREADS, "whole answers")
        self.metrics = _metrics(hosted, memory)

    def close(self) -> None:
        for pool in (self._small, self._large, self._whole):
            pool.shutdown()

    async def health(self) -> Response:
        """200 as long as the engine serves, else 503."""
        if self.hosted.failure is not None:
            return JSONResponse({"status": "failed", "error": self.hosted.failure}, 503)
        samples, waiting = self.hosted.load
        return JSONResponse({"status": "ok", "samples": samples, "waiting": waiting, "bytes": self._memory.held})

    async def counts(self, request: Request) -> Response:
        """GET /metrics: for Prometheus, and, like /health, without a key."""
        body, kind = self.metrics.exposed(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": kind})

    async def models(self) -> dict[str, Any]:
        """GET /v1/models: the one model that is served."""
        return {"object": "list", "data": [self._card()]}

    async def model(self, model: str) -> dict[str, Any]:
        """GET /v1/models/NAME."""
        self._reader.check_name(model)
        return self._card()

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        return await self._answer(request, self._reader.chat)

    async def text(self, request: Request) -> Response:
        """POST /v1/completions."""
        return await self._answer(request, self._reader.text)

    async def transcript(self, request: Request) -> Response:
        """POST /v1/audio/transcriptions."""
        return await self._answer(request, partial(self._reader.transcript, request.headers.get("content-type", "")))

    def _card(self) -> dict[str, Any]:
        length = self.hosted.options.max_model_len
        about = {"object": "model", "created": self._created, "owned_by": "gristmill", "max_model_len": length}
        return {"id": self.name, **about}

    async def _answer(self, request: Request, prepare: Callable[[bytes], Prepared | WithMedia]) -> Response:
        noted = noted_of(request.scope)
        with ExitStack() as until_answered:
            held = until_answered.enter_context(self._memory.request())
            try:
                prepared = await self._prepared(request, prepare, held)
            except Busy as error:
                raise unserved(error) from error
            stream = until_answered.enter_context(await self._submit(prepared.jobs, prepared.param))
            noted.took(sum(len(job.tokens) for job in prepared.jobs))
            if prepared.stream:
                return _Events(until_answered.pop_all(), self._events(stream, prepared.reply, noted))
            grown = await unless_gone(request.receive, _collected(stream, noted))
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._whole, prepared.reply.whole, grown)
            return Response(answer, media_type=prepared.reply.media_type)

    async def _prepared(
        self, request: Request, prepare: Callable[[bytes], Prepared | WithMedia], held: Held
    ) -> Prepared:
        """A request that was read. What it is made of stays with it until it is answered, and counts as long. Raises
        ApiError, Gone, Busy."""
        body = await read_body(request.receive, self._limit, self._patience, held)
        pool = self._large if len(body) >= _LARGE else self._small
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(pool, prepare, body)
        if isinstance(prepared, WithMedia):
            fetching = fetched(prepared.refs, self._images, self._fetcher, self._fetching)
            files = await unless_gone(request.receive, fetching)
            held.grow(sum(map(len, files.values())))
            prepared = await loop.run_in_executor(self._large, prepared.finish, files)
            media = (array for job in prepared.jobs for array in (job.media or {}).values())
            held.grow(sum(array.nbytes for array in media))
        return prepared

    async def _submit(self, jobs: Sequence[Job], param: str) -> Stream:
        try:
            return await self.hosted.submit(*jobs)
        except TooLong as error:
            raise too_long(str(error), param) from error
        except ValueError as error:
            raise refuse(f"{param}: {error}", param) from error
        except (Busy, Failed, Closed) as error:
            raise unserved(error) from error

    async def _events(self, stream: Stream, reply: Answer, noted: Noted) -> AsyncIterator[str]:
        """Server-sent events. The status is sent by now: an error is an event, which OpenAI's clients raise."""
        loop = asyncio.get_running_loop()
        try:
            for event in reply.opening():
                yield event
            async for items in stream:
                noted.grew(_tokens(items))
                if events := await loop.run_in_executor(self._small, reply.events, items):
                    yield "".join(events)
            yield "".join(reply.closing())
        except (Failed, Closed) as error:
            yield f"data: {json.dumps(unserved(error).body)}\n\n"
        except Exception as error:  # a stream that just ends would pass for a whole one
            _LOG.exception("an answer could not be sent")
            yield f"data: {json.dumps(defect(error).body)}\n\n"


async def _collected(stream: Stream, noted: Noted) -> dict[int, list[Delta]]:
    """All tokens of every completion, by its number."""
    grown: dict[int, list[Delta]] = {}
    try:
        async for items in stream:
            noted.grew(_tokens(items))
            for item in items:
                grown.setdefault(item.index, []).append(item)
    except (Failed, Closed) as error:
        raise unserved(error) from error
    return grown


def _tokens(items: Sequence[Delta]) -> int:
    return sum(item.token is not None for item in items)


def _metrics(hosted: HostedEngine, memory: Memory) -> Metrics:
    """Counts of a server, and what engine and memory say of themselves when they are read."""
    metrics, slots = Metrics(), hosted.options.max_num_seqs
    metrics.watch("grist_engine_slots", "Completions that can be generated side by side.", lambda: slots)
    metrics.watch("grist_engine_slots_used", "Completions that are generated now.", lambda: hosted.slots_used)
    metrics.watch("grist_engine_up", "1 as long as the engine serves.", lambda: hosted.failure is None)
    metrics.watch("grist_requests_waiting", "Requests of which no completion has begun.", lambda: hosted.load[1])
    metrics.watch("grist_queue_bytes", "Bytes that requests hold.", lambda: memory.held)
    metrics.watch("grist_queue_bytes_limit", "Bytes that they may hold together.", lambda: memory.most)
    return metrics


class _Events(StreamingResponse):
    """Events until the client goes away, which is noticed also while there is nothing to send. `until_answered`: what
    ends with them."""

    def __init__(self, until_answered: ExitStack, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._until_answered = until_answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._until_answered, suppress(Gone):
            await unless_gone(receive, self.stream_response(send))
