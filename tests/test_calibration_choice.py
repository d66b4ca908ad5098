"""Which widths are tried, and which of them samples choose."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from peelcli import calibration
from peelcli.calibration import Choice, choices, choose, figure, mended
from peelcli.config import Options
from peelcli.graph import trace
from peelcli.graph.legal import Legality
from peelcli.records import Cut, Limit, Subject
from peelcli.results import Distance
from peelcli.samples import spread
from peelcli.surgery.prune import apply_cuts
from tests.support import graphs
from tests.support.evidence import evidence_of, same, state, subject_of

# --- the choice of the widths

TWO_LINES = graphs.graph([graphs.group("a", 8), graphs.group("b", 8)], (graphs.product(10, 0), graphs.product(10, 1)))


def test_what_is_tried_and_equal_widths_once():
    scores = graphs.scores(TWO_LINES, (5.0, 1.0))
    found = choices(TWO_LINES, scores, [Limit("macs", 100)], Options())
    assert (found[0].name, found[0].widths) == ("peel", (7, 3))
    assert len({choice.widths for choice in found}) == len(found)
    assert {choice.options.allocate for choice in found} <= {"peel", "greedy", "uniform"}
    same = graphs.scores(TWO_LINES, (1.0, 1.0))
    assert [choice.name for choice in choices(TWO_LINES, same, [Limit("macs", 100)], Options())] == ["peel"]


def test_the_users_own_pool_and_tau_are_tried():
    scores = graphs.scores(TWO_LINES, (5.0, 1.0))
    found = choices(TWO_LINES, scores, [Limit("macs", 100)], Options(pool=0.2, tau=2.0))
    assert found[0].options.pool == 0.2
    assert all(choice.options.pool == 0.2 for choice in found)
    taus = {choice.name: choice.options.tau for choice in found}
    assert taus["peel"] == 2.0
    assert taus.get("peel, half tau", 1.0) == 1.0


def three_choices(subject: Subject):
    """Names and widths: the share of its free groups' channels that each keeps."""
    graph = trace.trace(subject, Legality(align=1, min_keep=0.1))

    def cut(widths):
        return tuple(Cut(g, w, tuple(range(w)), 1.0) for g, w in zip(graph.groups, widths, strict=True))

    def at(share):
        return tuple(g.full if g.locked else max(g.legal_widths()[0], int(g.full * share)) for g in graph.groups)

    return [Choice(name, Options(), at(share)) for name, share in (("a", 0.3), ("b", 0.9), ("c", 0.6))], cut


@pytest.mark.parametrize("repair", ["auto", "none"])
def test_the_nearest_to_the_original_is_chosen(repair):
    subject = subject_of("mlp")
    tried, cut = three_choices(subject)
    told = []
    chosen, table = choose(evidence_of(subject, 30, repair=repair), tried, cut, 1000, lambda *done: told.append(done))
    assert [row.name for row in table] == ["a", "b", "c"]
    figures = [figure(row.distance) for row in table]
    assert chosen is tried[figures.index(min(figures))]
    assert [row.chosen for row in table] == [row.name == chosen.name for row in table]
    assert chosen.name == "b"
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_of_equally_near_ones_the_first_is_chosen():
    subject = subject_of("mlp")
    tried, cut = three_choices(subject)
    again = [replace(tried[2], name=name) for name in ("first", "second")]
    chosen, table = choose(evidence_of(subject), again, cut, 1000)
    assert chosen.name == "first"
    assert [row.chosen for row in table] == [True, False]


def test_without_repair_candidates_are_compared_as_they_are_cut(monkeypatch):
    monkeypatch.setattr(calibration, "repair", lambda *_: pytest.fail("nobody wanted that"))
    subject = subject_of("mlp")
    tried, cut = three_choices(subject)
    evidence = evidence_of(subject, repair="none")
    _, table = choose(evidence, tried, cut, 1000)
    assert table[0].distance == evidence.judge.distance(apply_cuts(subject.module, cut(tried[0].widths)))


def test_large_models_are_tried_on_fewer_samples(monkeypatch):
    seen = []

    def note(original, slim, cuts, samples, seed, progress=None):
        seen.append([float(x[0, 0]) for (x,) in samples.inputs])

    monkeypatch.setattr(calibration, "repair", note)
    subject = subject_of("mlp")
    tried, cut = three_choices(subject)
    evidence = evidence_of(subject, 100)
    choose(evidence, tried[:1], cut, 10**12)
    choose(evidence, tried[:1], cut, 10)
    everything = [float(x[0, 0]) for (x,) in evidence.fit.inputs]
    assert seen == [[everything[k] for k in spread(80, 48)], everything]


@pytest.mark.parametrize(("macs", "repairs"), [(1000, 3), (10**12, 4)])
def test_the_chosen_one_is_repaired_once_more_only_where_it_saw_few_samples(monkeypatch, macs, repairs):
    subject = subject_of("mlp")
    tried, cut = three_choices(subject)
    fresh, kept = evidence_of(subject, 100), evidence_of(subject, 100)
    runs, real = [], calibration.repair
    monkeypatch.setattr(calibration, "repair", lambda *given: runs.append(given) or real(*given))
    chosen, _ = choose(kept, tried, cut, macs)
    cuts = cut(chosen.widths)
    slim = apply_cuts(subject.module, cuts)
    found, fidelity = mended(kept, slim, cuts)
    assert len(runs) == repairs
    anew, same_fidelity = mended(fresh, slim, cuts)
    assert same(found, state(anew))
    assert fidelity == same_fidelity
    # Other cuts are no concern of what was kept.
    choose(kept, tried, cut, macs)
    other = cut(tried[0].widths)
    found, _ = mended(kept, apply_cuts(subject.module, other), other)
    anew, _ = mended(fresh, apply_cuts(subject.module, other), other)
    assert same(found, state(anew))


def test_the_figure_that_decides():
    assert figure(Distance(0.5)) == 0.5
    assert figure(Distance(0.5, kl=0.1)) == 0.1
    assert figure(Distance(math.nan)) == math.inf
    assert figure(Distance(0.1, kl=math.nan)) == math.inf
