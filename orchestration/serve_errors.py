"""Errors of `grist serve`, in OpenAI's form: what its clients raise by status, with the field that is meant."""

from __future__ import annotations

from collections.abc import Mapping


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
