"""What training makes of the model as it came."""

from __future__ import annotations

import copy

import pytest
from torch import nn

import peelcli as peel
from peelcli import tuning
from tests.support.lessons import images, network, pruned


@pytest.fixture(scope="module")
def pair():
    model = network()
    return model, pruned(model).model


def test_a_model_that_would_lose_by_statistics_of_batches_takes_smaller_steps(pair):
    x = images(120)
    repaired = peel.prune(pair[0], x[:1], flops="50%", align=4, data=x).model
    off = copy.deepcopy(pair[1])
    for norm in (off[1], off[4]):
        norm.running_mean += 1
    word = "a third of the usual rate"
    for model, settings, peak, told in [
        (repaired, {}, 0.01, True),
        (off, {}, 0.03, False),
        (repaired, {"rate": 0.02}, 0.02, False),
        (repaired, {"optimizer": "adamw"}, 0.001, False),
        (repaired, {"optimizer": "sgd", "batchnorm": "frozen"}, 0.03, False),
    ]:
        run = peel.finetune(model, x[:1], teacher=pair[0], data=x, steps=2, batch=64, **settings).run
        (found,) = run.tunings
        assert found.peak == pytest.approx(peak), settings
        assert any(word in note for note in found.notes) is told, settings
        assert found.after.kl <= found.before.kl


def test_the_model_that_came_is_never_moved(monkeypatch):
    """`Module.to` moves in place: on a GPU the slim model itself would go there."""
    moved, came = [], []

    class Home(nn.Sequential):
        def to(self, *where, **how):
            moved.append(id(self))
            return super().to(*where, **how)

    tune = tuning.tune

    def watched(pupil, *rest):
        came.append(pupil.slim)
        return tune(pupil, *rest)

    monkeypatch.setattr(tuning, "tune", watched)
    slim = Home(*network())
    peel.finetune(slim, images(1), teacher=network(), data=images(40), steps=2, batch=8)
    assert moved
    assert id(came[0]) not in moved


def test_norms_over_all_processes_go_with_mixed_precision(pair):
    """The statistics are float32, and what autocast hands to a norm is not."""
    settings = {"steps": 20, "batch": 16, "batchnorm": "sync", "precision": "bf16", "device": "cpu"}
    run = peel.finetune(pair[1], images(1), teacher=pair[0], data=images(120), **settings).run
    assert run.tunings[0].after.kl < run.tunings[0].before.kl
