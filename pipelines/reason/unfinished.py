"""How sampling breaks off: verdicts that may still come, results that are waited for, verdicts that never come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gristmill.stages.generate.engines.batch import RESULTS, BatchWaits
from gristmill.stages.run.unfinished import Incomplete

TITLE = "roll out"


class Undecided(Incomplete):
    """Too many samples without a verdict; the same command tries them again."""

    def __init__(self, undecided: int, samples: int, reasons: Mapping[str, int]) -> None:
        Exception.__init__(self, undecided, samples, reasons)
        self.errors = ()
        self.undecided, self.samples, self.reasons = undecided, samples, reasons

    def __str__(self) -> str:
        return (
            f"{_too_many(self.undecided, self.samples, self.reasons)}\nWhat is done is kept: run the same command again"
            " to try only these."
        )


class BatchesWait(Incomplete):
    """Requests wait for results of a provider's batch API; the same command reads them."""

    def __init__(self, waits: Sequence[BatchWaits], folder: str) -> None:
        Exception.__init__(self, waits, folder)
        self.errors = tuple(waits)
        self.requests = sum(wait.requests for wait in waits)
        self.files = tuple(file for wait in waits for file in wait.files)
        self.folder = folder

    def __str__(self) -> str:
        shown = "".join(f"\n  {file}" for file in self.files[:10])
        more = f"\n  and {len(self.files) - 10:,} more" if len(self.files) > 10 else ""
        return (
            f"{TITLE}: {self.requests:,} requests wait for their results:{shown}{more}\nGive these files to the"
            " provider's batch API (endpoint /v1/chat/completions), put its output and error files into"
            f" {self.folder}/{RESULTS}, and run the same command again. What is done is kept."
        )


def _too_many(undecided: int, samples: int, reasons: Mapping[str, int]) -> str:
    mostly = ", ".join(f"{reason} ({count:,})" for reason, count in Counter(reasons).most_common(4))
    return (
        f"{TITLE}: {undecided:,} of {samples:,} samples have no verdict, more than recipe.max_undecided_rate allows; of"
        f" all that were not accepted: {mostly}."
    )


def never_decided(undecided: int, samples: int, reasons: Mapping[str, int]) -> str:
    """What fails a run: samples without a verdict, which no further attempt would give them."""
    return (
        f"{_too_many(undecided, samples, reasons)}\nAnother attempt would end like the last. Leave out the problems"
        " whose gold answers are no mathematics, or change what the engine refuses; or raise recipe.max_undecided_rate."
        " What is done is kept."
    )
