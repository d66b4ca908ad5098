"""The seed makes a run on the CPU repeat, also where each sample is another one each time that it is read."""

from __future__ import annotations

import itertools
import os
import random
import signal

import numpy as np
import pytest
import torch
from torch import nn

import peelcli as peel
from peelcli.errors import PeelError
from peelcli.training import loop
from peelcli.training.feed import reseed
from tests.support.lessons import images, network, pruned

CALLS = itertools.count()


class Augmented:
    """As torchvision's data sets with random transforms: all three sources of chance."""

    def __init__(self):
        self.x = images(60)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, at):
        return self.x[at] + 0.3 * torch.randn(1, 8, 8) + 0.1 * random.random() + 0.1 * float(np.random.rand())


@pytest.fixture(scope="module")
def pair():
    model = network()
    return model, pruned(model).model


def tuned(pair, folder, **settings):
    reseed(next(CALLS), 0, 0)  # whatever the caller drew before
    settings = {"epochs": 2, "batch": 16, "workers": 0, **settings}
    return peel.finetune(pair[1], images(1), teacher=pair[0], data=Augmented(), checkpoints=folder, **settings)


def same(one, two):
    return all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def test_two_runs_on_random_samples_are_equal_in_figures_and_weights(pair, tmp_path):
    runs = [tuned(pair, tmp_path / name) for name in ("one", "two")]
    figures = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("one", "two")]
    assert figures[0] == figures[1]
    assert runs[0].run.tunings[0].curve == runs[1].run.tunings[0].curve
    assert same(runs[0].model, runs[1].model)
    other = tuned(pair, tmp_path / "other", seed=7)
    assert other.run.tunings[0].before != runs[0].run.tunings[0].before


def test_values_have_the_same_unit_in_both(tmp_path):
    """The unit of the loss comes from the first samples."""
    model = nn.Sequential(*network()[:6], nn.Conv2d(16, 2, 1)).eval()
    short = model, pruned(model).model
    curves = [tuned(short, tmp_path / name).run.tunings[0].curve for name in ("one", "two")]
    assert curves[0][0].distance.kl is None
    assert curves[0] == curves[1]


def test_a_resumed_run_is_judged_on_the_same_held_out_samples(pair, tmp_path, monkeypatch):
    whole = tuned(pair, tmp_path / "whole")
    asked = []

    def stopped(seed, step, rank):
        reseed(seed, step, rank)
        if step == 2 and not asked:
            asked.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "reseed", stopped)
    with pytest.raises(PeelError, match="the checkpoint of step 3"):
        tuned(pair, tmp_path / "parts")
    parts = tuned(pair, tmp_path / "parts", resume=True)
    assert parts.run.tunings[0].curve == whole.run.tunings[0].curve
    assert same(parts.model, whole.model)
