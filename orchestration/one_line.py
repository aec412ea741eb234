"""A failure that the state of a flow run says in a line has no traceback in its log."""

from __future__ import annotations

import logging

from prefect.exceptions import FailedRun


class OneLine(logging.Filter):
    """Leaves out the traceback through Prefect's engine that follows a state which says in a line what failed."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))
