"""Errors of `grist serve`, in OpenAI's form: what its clients raise by status, with the field that is meant."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gristmill.orchestration.serve.engine import Busy, Closed


class ApiError(Exception):
    """An answer with an error, in OpenAI's form."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refuse(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """What is wrong with a request: 400."""
    return ApiError(400, message, param=param, code=code)


def too_long(message: str, param: str) -> ApiError:
    """A prompt that does not fit: 400, by the code that clients know."""
    return refuse(f"the prompt is too long: {message}", param, "context_length_exceeded")


def unserved(error: Exception, headers: Mapping[str, str] = MappingProxyType({})) -> ApiError:
    """What the host of the engine says: come again, go elsewhere, or that it failed."""
    if isinstance(error, Busy):
        again = {"Retry-After": "1", **headers}
        return ApiError(429, str(error), "rate_limit_error", code="rate_limit_exceeded", headers=again)
    return ApiError(503 if isinstance(error, Closed) else 500, str(error), "server_error")


def defect(error: BaseException) -> ApiError:
    """A mistake of the server's own: its kind alone, the rest is for the log."""
    return ApiError(500, f"an error of the server: {type(error).__name__}; its log says more", "server_error")


async def say_error(request: Request, error: Exception) -> Response:
    """Any error as an answer in OpenAI's form. A defect of gristmill goes on to the server's log as well."""
    if isinstance(error, ApiError):
        answer = error
    elif isinstance(status := getattr(error, "status_code", None), int):
        answer = ApiError(status, f"{request.method} {request.url.path}: {getattr(error, 'detail', '')}")
    else:
        answer = defect(error)
    return JSONResponse(answer.body, answer.status, dict(answer.headers or {}))
