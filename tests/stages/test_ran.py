"""What ran is what is claimed."""

from __future__ import annotations

import pytest

from gristmill.lake.accounts.receipt import Receipt, StageId
from gristmill.stages.run.ran import Ran, WrongClaim

SCAN, EXACT, NEWER = (
    StageId(name="scan", version=1, config={"chunk_bytes": 3}),
    StageId(name="exact", version=1, config={}),
    StageId(name="exact", version=2, config={}),
)


def test_the_same_stages_in_any_order_and_number_are_the_same():
    ran = Ran()
    ran.add(Receipt(work_key="0", stages=(SCAN, EXACT), inputs=()))
    ran.add(Receipt(work_key="1", stages=(SCAN,), inputs=()))
    ran.check("web", [EXACT, SCAN])


@pytest.mark.parametrize(
    ("claimed", "message"),
    [
        ([SCAN], r"web: .*exact v1 ran, and is not claimed\. "),
        ([EXACT], r'scan v1 \{"chunk_bytes":3\} ran, and is not claimed'),
        ([SCAN, NEWER], r"exact v1 ran, and is not claimed; exact v2 is claimed, and did not run"),
        ([SCAN, EXACT, NEWER], r"web: .*: exact v2 is claimed, and did not run"),
        ([SCAN.model_copy(update={"config": {}}), EXACT], r"scan v1 is claimed, and did not run"),
    ],
)
def test_a_difference_is_named(claimed, message):
    with pytest.raises(WrongClaim, match=message):
        Ran([SCAN, EXACT]).check("web", claimed)


def test_where_there_was_nothing_to_do_a_stage_may_not_have_run_but_none_may_be_left_out():
    ran = Ran([SCAN], nothing_to_do=True)
    ran.check("web", [SCAN, EXACT])
    with pytest.raises(WrongClaim, match="scan v1"):
        ran.check("web", [EXACT])


def test_a_copy_is_apart():
    ran = Ran([SCAN])
    later = ran.copy()
    later.add_stages([EXACT])
    ran.check("web", [SCAN])
    later.check("web", [SCAN, EXACT])
