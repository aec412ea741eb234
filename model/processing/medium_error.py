"""Why a medium cannot be had: one kind of error for images, videos and clips, with a word for the fate of a record."""

from __future__ import annotations

from typing import ClassVar


class MediumError(ValueError):
    """A medium that cannot be had. `word`: of those that the class lists; the message says which value. `noun`: what
    one of the kind is called."""

    kind: ClassVar[str]
    noun: ClassVar[str]

    def __init__(self, word: str, message: str) -> None:
        super().__init__(word, message)  # both, so that it can be pickled
        self.word, self.message = word, message

    @property
    def reason(self) -> str:
        """`KIND.WORD`."""
        return f"{self.kind}.{self.word}"

    def __str__(self) -> str:
        return self.message
