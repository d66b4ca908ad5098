"""The search for the groups that break a proof."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from peelcli.records import Cut
from peelcli.surgery.faulty_groups import faulty_groups
from tests.support import graphs


def cuts_named(*names: str) -> list[Cut]:
    return [Cut(graphs.group(name, 4), 2, (0, 1), 1.0) for name in names]


def test_after_its_time_the_search_clears_nobody():
    assert faulty_groups(cuts_named("a", "b", "c"), lambda _: True, seconds=0) == ("a", "b", "c")


def test_one_bad_group_is_named():
    tried: list[int] = []

    def holds(some):
        tried.append(len(some))
        return all(cut.group.name != "c" for cut in some)

    assert faulty_groups(cuts_named("a", "b", "c", "d", "e"), holds) == ("c",)
    assert tried[0] == 5
    assert len(tried) <= 7


def test_groups_at_full_width_are_left_out():
    full = [replace(cut, width=4, kept=(0, 1, 2, 3)) for cut in cuts_named("a", "b")]
    assert faulty_groups([*full, *cuts_named("c")], lambda some: not some) == ("c",)


def test_nothing_is_named_where_all_holds():
    assert faulty_groups(cuts_named("a", "b"), lambda _: True) == ()


def test_groups_that_only_fail_together_are_named_together():
    def holds(some):
        return not {"b", "e"} <= {cut.group.name for cut in some}

    assert faulty_groups(cuts_named("a", "b", "c", "d", "e", "f"), holds) == ("b", "e")
    assert faulty_groups(cuts_named("a", "b", "c"), lambda some: len(some) < 3) == ("a", "b", "c")


@given(st.sets(st.integers(0, 11)), st.integers(1, 12))
def test_every_bad_group_is_named_and_no_other(bad, count):
    names = [f"g{k}" for k in range(count)]
    wrong = {f"g{k}" for k in bad} & set(names)
    found = faulty_groups(cuts_named(*names), lambda some: not wrong & {cut.group.name for cut in some})
    assert set(found) == wrong


@given(st.sets(st.integers(0, 9), min_size=1))
def test_a_conflict_is_named_and_nothing_else(together):
    wrong = {f"g{k}" for k in together}
    found = faulty_groups(
        cuts_named(*(f"g{k}" for k in range(10))), lambda some: not wrong <= {cut.group.name for cut in some}
    )
    assert set(found) == wrong
