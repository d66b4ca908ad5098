"""Which channels stay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peelcli.allocation.select import bundle_scores, keep_best
from tests.support import graphs


def test_the_best_channels_stay_in_their_order():
    group = graphs.group("a", 5)
    assert keep_best(group, (3.0, 1.0, 5.0, 4.0, 2.0), 3) == (0, 2, 3)


def test_of_equal_channels_the_earlier_one_stays():
    assert keep_best(graphs.group("a", 4), (1.0, 2.0, 1.0, 1.0), 2) == (0, 1)


def test_a_bundle_counts_by_its_mean():
    group = graphs.group("a", 6, bundle=2)
    assert bundle_scores(group, (1.0, 9.0, 4.0, 4.0, 0.0, 7.0)) == [5.0, 4.0, 3.5]
    assert keep_best(group, (1.0, 9.0, 4.0, 4.0, 0.0, 7.0), 4) == (0, 1, 2, 3)


def test_bundles_of_channels_that_lie_apart():
    halves = graphs.group("a", 4).__class__("a", ("a",), 4, 2, 2, ((0, 2), (1, 3)), (), ())
    assert keep_best(halves, (1.0, 0.0, 1.0, 5.0), 2) == (1, 3)


@given(graphs.any_group(), st.data())
def test_what_holds_for_all(group, data):
    channels = data.draw(st.lists(st.floats(-5, 5), min_size=group.full, max_size=group.full))
    width = data.draw(st.sampled_from(group.legal_widths()))
    kept = keep_best(group, channels, width)
    assert len(kept) == width
    assert list(kept) == sorted(set(kept))
    whole = [bundle for bundle in group.bundles if set(bundle) <= set(kept)]
    assert sum(map(len, whole)) == width
    scores = bundle_scores(group, channels)
    lost = [score for bundle, score in zip(group.bundles, scores, strict=True) if bundle not in whole]
    held = [score for bundle, score in zip(group.bundles, scores, strict=True) if bundle in whole]
    assert not lost or not held or min(held) >= max(lost)
