"""The HTTP server of `grist serve`: OpenAI's chat completions and completions over one hosted engine.

The event loop only waits; the engine has its thread (`stages.engines`), and so has the tokenizer. A client that goes
away, whole answer or stream, takes its samples out of the engine. With a seed, the answer depends on request, seed and
model alone; every error has OpenAI's form, and a field that is not honoured is one (`serve_protocol`).
Source: the API reference of OpenAI; server-sent events as in the HTML standard, section 9.2.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from model.generate import Request as Job
from model.generate import TooLong
from model.processing import chat
from model.processing.text import Part, Tokenizer
from orchestration.serve_protocol import ApiError, ChatRequest, TextRequest, read, refuse
from orchestration.serve_reply import Reply, dumped
from orchestration.serve_text import Calls, Names
from stages.engines import Busy, Closed, Failed, Grown, Hosted, Stream

BODY_LIMIT = 8 << 20
_DEFAULT_TEXT = 16  # tokens of a completion that says no number, as OpenAI's
_GONE = 499  # nobody reads it; what proxies log for a client that closed
_T = TypeVar("_T")


def make_app(
    hosted: Hosted, tokenizer: Tokenizer, name: str, *, api_key: str | None = None, body_limit: int = BODY_LIMIT
) -> FastAPI:
    """Serves `hosted` as the model `name`. The engine must have been given `decode` (`stages.engines.decoder`).

    `api_key`: what clients send as `Authorization: Bearer`; None: none is asked for. `body_limit`: bytes of a request.
    `hosted` stays the caller's, to close after the server has ended; `tokenizer` is the app's from here on.
    """
    service = _Service(hosted, tokenizer, name, body_limit)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.pool.shutdown()

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
    app.add_api_route("/health", service.health, methods=["GET"])
    app.add_api_route("/v1/models", service.models, methods=["GET"], dependencies=guarded)
    app.add_api_route("/v1/models/{model:path}", service.model, methods=["GET"], dependencies=guarded)
    app.add_api_route("/v1/chat/completions", service.chat, methods=["POST"], dependencies=guarded)
    app.add_api_route("/v1/completions", service.text, methods=["POST"], dependencies=guarded)
    app.add_exception_handler(ApiError, _said)
    app.add_exception_handler(HTTPException, _said)
    app.add_exception_handler(404, _said)
    app.add_exception_handler(405, _said)
    app.add_exception_handler(Exception, _said)
    return app


async def _said(request: Request, error: Exception) -> Response:
    """Any error as an answer in OpenAI's form. What is a defect of ours goes on to the server's log as well."""
    if isinstance(error, ApiError):
        found = error
    elif isinstance(status := getattr(error, "status_code", None), int):
        found = ApiError(status, f"{request.method} {request.url.path}: {getattr(error, 'detail', '')}")
    else:
        found = ApiError(500, f"an error of the server: {type(error).__name__}; its log says more", "server_error")
    return JSONResponse(found.body, found.status, dict(found.headers or {}))


class _Service:
    """The endpoints."""

    def __init__(self, hosted: Hosted, tokenizer: Tokenizer, name: str, body_limit: int) -> None:
        if hosted.decode is None:
            raise ValueError(
                "the engine has no `decode`: make it with Engine(model, options, decoder(tokenizer, vocab))"
            )
        self.hosted, self.name, self._tokenizer, self._limit = hosted, name, tokenizer, body_limit
        self._decode, self._eos = hosted.decode, hosted.config.text.eos
        self._names, self._calls = Names(tokenizer, hosted.decode), Calls(tokenizer)
        self._created = int(time.time())
        self.pool = ThreadPoolExecutor(1, "tokenizer")  # one: a tokenizer serves one thread

    async def health(self) -> Response:
        """200 as long as the engine serves, else 503."""
        if self.hosted.failure is not None:
            return JSONResponse({"status": "failed", "error": self.hosted.failure}, 503)
        samples, waiting = self.hosted.load
        return JSONResponse({"status": "ok", "samples": samples, "waiting": waiting})

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._card()]}

    async def model(self, model: str) -> dict[str, Any]:
        self._check_name(model)
        return self._card()

    async def chat(self, request: Request) -> Response:
        asked = read(ChatRequest, await self._body(request))
        self._check_name(asked.model)
        sampling = asked.sampling(asked.limit)
        ids = await self._tokens(lambda: chat.prompt(asked.conversation()), "messages")
        job = Job(_key(asked.seed, ids), ids, sampling, asked.n)
        return await self._answer(request, asked, job)

    async def text(self, request: Request) -> Response:
        asked = read(TextRequest, await self._body(request))
        self._check_name(asked.model)
        prompt = asked.text
        ids = await self._tokens(lambda: [Part(prompt)], "prompt") if isinstance(prompt, str) else tuple(prompt)
        room = max(1, self.hosted.options.length - len(ids))
        most = min(_DEFAULT_TEXT, room) if asked.max_tokens is None else asked.max_tokens
        job = Job(_key(asked.seed, ids), ids, asked.sampling(most), asked.n)
        return await self._answer(request, asked, job)

    async def _body(self, request: Request) -> bytes:
        data = bytearray()
        async for some in request.stream():
            data += some
            if len(data) > self._limit:
                raise ApiError(413, f"the body is larger than {self._limit:,} bytes: send less")
        return bytes(data)

    def _check_name(self, model: str) -> None:
        if model != self.name:
            message = f"model={model!r}: this server has {self.name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    def _card(self) -> dict[str, Any]:
        length = self.hosted.options.length
        about = {"object": "model", "created": self._created, "owned_by": "gristmill", "max_model_len": length}
        return {"id": self.name, **about}

    async def _tokens(self, parts: Callable[[], list[Part]], param: str) -> tuple[int, ...]:
        """Token ids of a prompt, made in the tokenizer's thread: it and the checks of tools may take a while."""

        def encode() -> tuple[int, ...]:
            return tuple(self._tokenizer.encode([parts()]).ids.tolist())

        try:
            return await asyncio.get_running_loop().run_in_executor(self.pool, encode)
        except ValueError as error:  # no Unicode, or a tokenizer without the tokens of a chat
            raise refuse(f"{param}: {error}", param) from error

    async def _answer(self, request: Request, asked: ChatRequest | TextRequest, job: Job) -> Response:
        reply = Reply(asked, job, self._decode, self._eos, self._names, self._calls)
        stream = await self._submit(job, "messages" if reply.chat else "prompt")
        if asked.stream:
            return _Events(stream, _events(stream, reply))
        with stream:
            grown = await _unless_gone(request.receive, _collected(stream))
        if grown is None:
            return Response(status_code=_GONE)
        return Response(dumped(reply.whole(grown)), media_type="application/json")

    async def _submit(self, job: Job, param: str) -> Stream:
        try:
            return await self.hosted.submit(job)
        except TooLong as error:
            raise refuse(f"the prompt is too long: {error}", param, "context_length_exceeded") from error
        except ValueError as error:
            raise refuse(f"{param}: {error}", param) from error
        except (Busy, Failed, Closed) as error:
            raise _unserved(error) from error


def _unserved(error: Exception) -> ApiError:
    if isinstance(error, Busy):
        return ApiError(429, str(error), "rate_limit_error", code="rate_limit_exceeded", headers={"Retry-After": "1"})
    return ApiError(503 if isinstance(error, Closed) else 500, str(error), "server_error")


def _key(seed: int | None, ids: tuple[int, ...]) -> str:
    """What decides the random numbers: seed and prompt, or nothing that comes again."""
    if seed is None:
        return secrets.token_hex(16)
    return f"{seed}/{hashlib.sha256(np.array(ids, np.int64).tobytes()).hexdigest()}"


async def _collected(stream: Stream) -> dict[int, list[Grown]]:
    """All tokens of every sample, by its number."""
    found: dict[int, list[Grown]] = {}
    try:
        async for items in stream:
            for one in items:
                found.setdefault(one.sample.number, []).append(one)
    except (Failed, Closed) as error:
        raise _unserved(error) from error
    return found


async def _events(stream: Stream, reply: Reply) -> AsyncIterator[str]:
    """Server-sent events. The status is sent by now: an error is an event, which OpenAI's clients raise."""
    for answer in reply.opening():
        yield f"data: {dumped(answer)}\n\n"
    try:
        async for items in stream:
            for answer in (answer for one in items for answer in reply.piece(one)):
                yield f"data: {dumped(answer)}\n\n"
    except (Failed, Closed) as error:
        yield f"data: {json.dumps(_unserved(error).body)}\n\n"
        return
    for answer in reply.closing():
        yield f"data: {dumped(answer)}\n\n"
    yield "data: [DONE]\n\n"


class _Events(StreamingResponse):
    """Events until the client goes away, which is noticed also while there is nothing to send."""

    def __init__(self, stream: Stream, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._stream:
            await _unless_gone(receive, self.stream_response(send))


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T | None:
    """What `work` returns; None, and `work` cancelled, if the client goes away before."""

    async def gone() -> None:
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await receive()

    tasks = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()
