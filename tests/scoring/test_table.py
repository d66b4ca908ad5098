"""The table of scorers: what it lists, what it refuses, what auto stands for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from peelcli.errors import UsageError
from peelcli.records import ChannelGraph, CostModel, Scores, Subject
from peelcli.samples import Samples
from peelcli.scoring import table
from peelcli.scoring.base import Material
from peelcli.scoring.table import SCORERS, check_name, read_table, score

GUIDE = Path(__file__).parents[2] / "docs" / "howto" / "add-a-scorer.md"


def test_the_table_lists_every_scorer_with_a_line():
    assert sorted(SCORERS) == ["bn", "fisher", "fpgm", "l1", "l2", "random", "reconstruction", "taylor"]
    assert [name for name, row in SCORERS.items() if row.needs_samples] == ["fisher", "reconstruction", "taylor"]
    assert all(row.summary.endswith(".") or row.summary.endswith(")") for row in SCORERS.values())
    assert all(callable(row.function) for row in SCORERS.values())


def test_one_file_is_enough_for_a_new_scorer(tmp_path):
    (tmp_path / "type_.py").write_text('"""Something new.\n\nMore on it.\n"""\n', "utf-8")
    (tmp_path / "base.py").write_text('"""No scorer."""\n', "utf-8")
    (row,) = read_table(tmp_path).values()
    assert (row.name, row.summary, row.module) == ("type", "Something new.", "peelcli.scoring.type_")
    assert not row.needs_samples


@pytest.mark.parametrize(
    ("line", "needs"),
    [
        ("NEEDS_SAMPLES = True", True),
        ("NEEDS_SAMPLES: bool = True", True),
        ("NEEDS_SAMPLES = False", False),
        ("OTHER = True", False),
        ("def score(material):\n    NEEDS_SAMPLES = True", False),
    ],
)
def test_a_scorer_that_needs_samples_says_so_in_its_file(tmp_path, line, needs):
    (tmp_path / "new.py").write_text(f'"""Something new."""\n\n{line}\n', "utf-8")
    assert read_table(tmp_path)["new"].needs_samples is needs


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_scores_from_data_are_refused_without_data(subject, graph, name):
    check_name(name)
    for refused in (
        lambda: check_name(name, with_data=False),
        lambda: score(subject, graph, name, 0),
        lambda: score(subject, graph, name, 0, Samples((), "empty")),
    ):
        with pytest.raises(UsageError, match=f"the score `{name}` needs samples") as caught:
            refused()
        assert caught.value.hint == "give calibration samples with --data, or --score l2"
    check_name("auto", with_data=False)
    check_name("l2", with_data=False)


def test_auto_is_reconstruction_where_there_are_samples(monkeypatch, subject, graph, samples_of):
    row = table.ScorerInfo("reconstruction", "A stand-in.", "peelcli.scoring.l1")
    monkeypatch.setattr(table, "SCORERS", {**SCORERS, "reconstruction": row})
    scores = score(subject, graph, "auto", 0, samples_of(subject))
    assert (scores.scorer, scores.notes) == ("l1", ("score: reconstruction, because there are samples",))
    assert score(subject, graph, "auto", 0).scorer == "bn"
    rest = {name: row for name, row in SCORERS.items() if name != "reconstruction"}
    monkeypatch.setattr(table, "SCORERS", rest)
    assert score(subject, graph, "auto", 0, samples_of(subject)).scorer == "bn"


def test_the_scorer_that_the_guide_shows_works(subject, graph):
    programs = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    (program,) = (text for text in programs if "def score(" in text)
    names = {}
    exec(program, names)
    scores = names["score"](Material(subject, graph, 0))
    assert [group.channels for group in scores.groups] == [(4.0, 0.0, 1.0), (2.0, 3.0)]


def test_the_table_can_be_shown_without_torch():
    program = "import sys; from peelcli.scoring.table import SCORERS; print(len(SCORERS), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(SCORERS)), "False"]


@pytest.mark.parametrize("name", ["auto", *SCORERS])
def test_known_names_pass(subject, graph, samples_of, name):
    check_name(name)
    assert isinstance(score(subject, graph, name, 0, samples_of(subject)), Scores)


def test_an_unknown_name_gets_the_nearest_and_all(subject, graph):
    with pytest.raises(UsageError, match="no score called 'fpmg'") as caught:
        score(subject, graph, "fpmg", 0)
    assert caught.value.hint == "did you mean fpgm? --score takes one of " + ", ".join(["auto", *SCORERS])
    with pytest.raises(UsageError) as caught:
        check_name("zzz")
    assert caught.value.hint.startswith("--score takes one of auto, ")


def test_bn_without_any_batchnorm_names_another(make_group):
    module = nn.Linear(2, 2)
    graph = ChannelGraph((make_group("x", 2, ("weight", 0, "out", ((0,), (1,)))),), CostModel((), (), ()))
    with pytest.raises(UsageError, match="needs BatchNorm") as caught:
        score(Subject(module, (), "plain"), graph, "bn", 0)
    assert "--score l2" in caught.value.hint


def test_auto_is_bn_where_half_of_the_free_groups_have_batchnorm(subject, graph):
    scores = score(subject, graph, "auto", 0)
    assert scores.scorer == "bn"
    assert scores.notes[0] == "score: bn, because 1 of 2 groups that may shrink have a BatchNorm"
    assert scores.groups == score(subject, graph, "bn", 0).groups


def test_auto_is_l2_below_half(subject, graph):
    more = ChannelGraph((*graph.groups, graph.groups[1]), graph.cost)
    scores = score(subject, more, "auto", 0)
    assert (scores.scorer, scores.notes) == (
        "l2",
        ("score: l2, because 1 of 3 groups that may shrink have a BatchNorm",),
    )


def test_auto_with_everything_locked_still_scores(subject, graph, lock_all):
    assert score(subject, lock_all(graph), "auto", 0).scorer == "l2"


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_named(subject, graph, bad):
    with torch.no_grad():
        subject.module.conv2.weight[0, 0] = bad
    with pytest.raises(UsageError, match="l1 of conv1 is not a finite number") as caught:
        score(subject, graph, "l1", 0)
    assert "conv2" in caught.value.hint
