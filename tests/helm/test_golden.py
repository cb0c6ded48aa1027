"""Each scenario as it is rendered, to be looked at in a difference. UPDATE=1 writes them anew."""

import os
from pathlib import Path

import pytest
from chart import SCENARIOS, text

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_as_before(scenario):
    file = GOLDEN / f"{scenario}.yaml"
    rendered = text(scenario)
    if os.environ.get("UPDATE"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(rendered)
    assert rendered == file.read_text(), "if it is meant: UPDATE=1 make helm"


def test_nothing_is_left_of_scenarios_that_are_gone():
    assert sorted(path.stem for path in GOLDEN.glob("*.yaml")) == SCENARIOS
