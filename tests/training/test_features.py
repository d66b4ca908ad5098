"""Layers inside, against the channels that were kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import peelcli as peel
from peelcli.errors import UsageError
from peelcli.training.features import Matcher, pairs
from tests.support.lessons import images, network


@pytest.fixture
def cut():
    model = network()
    slim, run = peel.prune(model, images(1), flops="50%", align=4, score="l2", allocate="uniform")
    return model, slim, run.plan.cuts


def test_the_last_layer_of_each_group_is_matched_after_its_norm(cut):
    _model, slim, cuts = cut
    assert [pair.layer for pair in pairs(slim, cuts)] == ["1", "4"]
    assert pairs(slim, cuts)[0].kept.tolist() == list(cuts[0].kept)


def test_kept_channels_of_the_first_layer_are_those_of_the_original(cut):
    model, slim, cuts = cut
    first, second = pairs(slim, cuts)
    for chosen, exact in (((first,), True), ((second,), False)):
        matcher = Matcher(model, slim, chosen, torch.device("cpu"))
        with matcher.watching(), torch.no_grad():
            model(images(16)), slim(images(16))
        matcher.measure()
        assert (float(matcher.loss()) < 1e-12) == exact


def test_the_unit_is_the_original_s_deviation(cut):
    model, slim, cuts = cut
    matcher = Matcher(model, slim, pairs(slim, cuts)[:1], torch.device("cpu"))
    with torch.no_grad():
        slim[1].bias.add_(1.0)  # every kept channel is off by one
        with matcher.watching():
            model(images(16)), slim(images(16))
        matcher.measure()
        kept = model[1](model[0](images(16)))[:, list(cuts[0].kept)]
    assert float(matcher.loss()) == pytest.approx(1 / float(kept.var(correction=0)), rel=1e-4)


def test_a_model_that_was_not_cut_has_nothing_to_match():
    with pytest.raises(UsageError, match="no layer"):
        pairs(nn.Linear(2, 2), ())
