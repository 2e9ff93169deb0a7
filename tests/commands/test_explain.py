"""What `autocut explain` tells of steps that were not measured."""

from pathlib import Path

import pytest

from autocut.commands.explain import _hint

SPENT = "it needs a training of about 2m, and 5s of --budget is left"
NEVER = "int8_static must change at least one layer"


@pytest.mark.parametrize(
    ("reasons", "measure", "told"),
    [
        ([NEVER, SPENT], True, "with more time: autocut explain studies/digits 7 --budget 1h"),
        ([NEVER], True, None),
        (["it was not measured yet"], False, "measure it: autocut explain studies/digits 7"),
    ],
)
def test_more_time_is_proposed_only_where_it_helps(reasons, measure, told):
    """A step that this machine cannot make stays unmeasured, however long one waits."""
    assert _hint(Path("studies/digits"), 7, reasons, measure=measure) == told
