"""No secret in what others can read: jobs' commands and environments, parameters, logs.

Ray and Prefect show all of these in clear. Secrets are values of this process' environment, told by the names of their
variables, and what stands in an address itself (a password, a signature). A config that holds one is refused; a line of
a log that does is written with *** in its place. Workers and jobs get credentials from their own environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gristmill.pipelines.settings.config import BadConfig

_NAMED = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|AUTH_STRING|PRIVATE_KEY|CONNECTION_URL|_DSN\b")
_NO_VALUE = re.compile(r"_(PATH|FILE|DIR|URI|MODE|ID)$")
"""Variables that say where a secret is, or which: their values may be read."""
_LEAST = 12
"""Characters of a value that is taken for a secret: shorter ones are words, which stand in paths too."""
_IN_ADDRESS = (
    re.compile(r"(?P<where>[a-z][a-z0-9+.-]{1,20}://[^/\s:@'\"]{0,200}:)[^/\s@'\"]{1,200}(?=@)"),
    re.compile(
        r"(?P<where>[?&](x-amz-signature|x-amz-security-token|signature|sig|token|access_token|api_?key)=)[^\s&'\"]+",
        re.I,
    ),
)
"""A password, and what signs a request, behind what they stand after."""


@dataclass(frozen=True)
class Secrets:
    """`values`: name of a variable -> its value; never shown."""

    values: Mapping[str, str] = field(repr=False)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Secrets:
        """What this process' environment holds of the kind."""
        variables = os.environ if environment is None else environment
        return cls({name: value for name, value in variables.items() if _is_secret(name, value)})

    def hidden(self, text: str) -> str:
        """The text with *** for every secret, and for passwords and signatures in addresses."""
        for value in self.values.values():
            text = text.replace(value, "***")
        for pattern in _IN_ADDRESS:
            text = pattern.sub(r"\g<where>***", text)
        return text

    def check(self, text: str, what: str) -> None:
        """Raises BadConfig where the text holds a secret: it says which variable or part, and never the value."""
        for name, value in self.values.items():
            if value in text:
                raise BadConfig(f"{what} holds the value of ${name}, which Ray and Prefect would show: {_INSTEAD}")
        for pattern in _IN_ADDRESS:
            if match := pattern.search(text):
                raise BadConfig(
                    f"{what} holds a secret after {match['where']!r}, which Ray and Prefect would show: {_INSTEAD}"
                )

    def check_settings(self, settings: Iterable[str]) -> None:
        """Raises BadConfig for a setting `a.b=value` that holds a secret; it says which key."""
        for setting in settings:
            self.check(setting, f"settings: {setting.partition('=')[0]}")


_INSTEAD = "leave it out, and give credentials to worker and jobs by their environment (AWS_* and so on)"


def _is_secret(name: str, value: str) -> bool:
    return len(value) >= _LEAST and bool(_NAMED.search(name.upper())) and not _NO_VALUE.search(name.upper())
