from __future__ import annotations

import re

from dermaflux.params import arms


def test_every_arm_has_a_title_and_a_colour_of_its_own() -> None:
    for table in (arms.TITLES, arms.COLOURS):
        assert table.keys() == set(arms.ARMS)
        assert len(set(table.values())) == len(table)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in arms.COLOURS.values())
