"""What is learned from, and what a run in training is judged by."""

from __future__ import annotations

import pytest
import torch

import peelcli as peel
from peelcli import retrain
from peelcli.errors import PeelError
from tests.support.lessons import images, network, pruned


@pytest.fixture(scope="module")
def pair():
    model = network()
    return model, pruned(model).model


def tuned(pair, data, **settings):
    return peel.finetune(pair[1], images(1), teacher=pair[0], data=data, steps=30, batch=16, **settings)


def test_one_s_own_samples_say_which_state_is_best(pair):
    others = images(20, seed=5)
    slim, run = tuned(pair, images(100), validation=others)
    (found,) = run.tunings
    assert (found.trained, found.held) == (100, 20)
    with torch.no_grad():
        before, after = pair[0](others).log_softmax(1), slim.eval()(others).log_softmax(1)
    assert found.after.kl == pytest.approx(float((before.exp() * (before - after)).sum(1).mean()), rel=1e-4)
    with torch.no_grad():
        right = pair[0](others).argmax(1)
    (found,) = tuned(pair, images(100), validation=(others, right))[1].tunings  # nothing to learn from those labels
    assert (found.metric, found.original) == ("accuracy", 1.0)
    assert "labels" not in found.objective
    with pytest.raises(PeelError, match="has no class numbers"):
        tuned(pair, images(100), validation=(others, right), distill=0.5)
    (found,) = tuned(pair, (others, right), validation=(others, right), distill=0.5)[1].tunings
    assert (found.trained, found.held) == (20, 20)


def test_pruning_does_not_see_what_the_trained_model_is_judged_by(monkeypatch):
    data, others = images(60), images(30, seed=5)
    seen = []
    gathered = retrain.gather

    def watched(subject, wanted, seed, progress=None):
        seen.append(gathered(subject, wanted, seed, progress))
        return seen[-1]

    monkeypatch.setattr(retrain, "gather", watched)
    _, run = peel.prune(
        network(),
        images(1),
        flops="50%",
        align=4,
        data=data,
        validation=others,
        finetune="2steps",
        batch=16,
        samples=40,
    )
    ((_, evidence),) = seen
    assert evidence is not None
    fitted = {float(x[0, 0, 0, 0]) for (x,) in evidence.fit.inputs}
    assert len(fitted) == 40
    assert fitted <= set(data[:, 0, 0, 0].tolist())
    assert {float(x[0, 0, 0, 0]) for (x,) in evidence.judge._samples.inputs} == set(others[:, 0, 0, 0].tolist())
    (found,) = run.tunings
    assert (found.trained, found.held) == (60, 30)
