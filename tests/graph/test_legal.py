"""Legal widths by hand, and what must hold for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peelcli.graph.legal import LEAST_CHOICES, Legality, step_and_floor


@pytest.mark.parametrize(
    ("full", "bundle", "align", "min_keep", "step", "floor"),
    [
        (64, 1, 1, 0.1, 1, 7),  # ceil(6.4)
        (64, 1, 8, 0.1, 8, 8),
        (64, 1, 8, 0.2, 8, 16),  # ceil(12.8) up to a multiple of 8
        (64, 4, 6, 0.1, 12, 12),  # least common multiple of 4 and 6
        (20, 1, 16, 0.9, 16, 20),  # 18 up to 32 is above full: no choice
        (100, 1, 1, 0.07, 1, 7),  # 0.07 * 100 is 7.000000000000001 in floats
        (1, 1, 1, 0.1, 1, 1),
        (64, 1, "auto", 0.1, 16, 16),  # 64 = 4 * 16
        (63, 1, "auto", 0.1, 8, 8),
        (24, 1, "auto", 0.1, 4, 4),  # 24 < 32, 24 >= 16
        (12, 1, "auto", 0.1, 2, 2),
        (6, 1, "auto", 0.1, 1, 1),
        (3, 1, "auto", 0.1, 1, 1),
        (96, 3, "auto", 0.1, 24, 24),  # lcm(3, 16) = 48 leaves two choices, lcm(3, 8) = 24 four
        (24, 12, "auto", 0.1, 12, 12),  # bundles come first
        (64, 1, "auto", 1.0, 16, 64),
    ],
)
def test_by_hand(full, bundle, align, min_keep, step, floor):
    assert step_and_floor(full, bundle, Legality(align, min_keep)) == (step, floor)


@given(
    st.integers(1, 12),
    st.integers(1, 300),
    st.one_of(st.just("auto"), st.integers(1, 32)),
    st.floats(0.01, 1.0, allow_nan=False),
)
def test_what_holds_for_all(bundle, bundles, align, min_keep):
    full = bundle * bundles
    step, floor = step_and_floor(full, bundle, Legality(align, min_keep))
    assert step % bundle == 0
    assert align == "auto" or step % align == 0
    assert 0 < floor <= full
    assert floor == full or (floor % step == 0 and floor >= min_keep * full - 1e-9)
    if align == "auto" and step > bundle:
        assert full >= LEAST_CHOICES * step
