"""Changes of samples that would do nothing, or harm, and runs that are another's, are refused before any training."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import nn

import peelcli as peel
from peelcli.errors import PeelError, UsageError
from tests.support.lessons import SIDE, images, network, pruned

LOSSES = """
import torch
def own(outputs, targets): return outputs.square().mean()
def first(outputs, targets): return float(outputs[:, 0].mean())
def last(outputs, targets): return -float(outputs[:, -1].mean())
"""


@pytest.fixture(scope="module")
def pair():
    model = network()
    return model, pruned(model).model


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(LOSSES)
    return f"{tmp_path / 'own.py'}:own"


def refused(pair, data, example, **settings):
    with pytest.raises(UsageError) as caught:
        peel.finetune(pair[1], example, teacher=pair[0], data=data, steps=2, batch=8, **settings)
    assert caught.value.hint.startswith("leave --")
    return caught.value.message


MAPS = {
    "masks": lambda: torch.zeros(1, SIDE, SIDE),
    "maps without channels": lambda: torch.zeros(SIDE, SIDE, dtype=torch.long),
    "channels last": lambda: torch.zeros(SIDE, SIDE, 3),
    "in a dict": lambda: {"class": torch.tensor(1), "depth": torch.zeros(1, SIDE, SIDE)},
}


@pytest.mark.parametrize("case", MAPS, ids=[name.replace(" ", "-") for name in MAPS])
def test_images_are_not_changed_without_the_maps_that_a_loss_compares(pair, own, case):
    data = [(x, MAPS[case]()) for x in images(20)]
    said = refused(pair, data, images(1), loss=own, augment="flip,shift")
    assert said.startswith("--augment flip,shift changes images, and not the targets of --loss that have their height")
    tuned = peel.finetune(
        pair[1], images(1), teacher=pair[0], data=data, steps=2, batch=8, loss=own, augment="flip", distill=1
    )  # where the original alone is learned from, targets have no part
    assert tuned.run.tunings[0].steps == 2


def test_images_are_changed_where_targets_are_of_another_kind(pair, own):
    data = [(x, torch.zeros(SIDE)) for x in images(20)]
    done = peel.finetune(
        pair[1], images(1), teacher=pair[0], data=data, steps=2, batch=8, loss=own, augment="crop", mixup=0.2
    )
    assert done.run.tunings[0].steps == 2


def test_what_is_no_image_is_not_augmented():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4)).eval()
    rows = torch.randn(20, 6)
    slim = peel.prune(model, rows[:1], flops="50%", align=4).model
    assert refused((model, slim), rows, rows[:1], augment="flip") == (
        "--augment flip changes images, and the samples hold none: no floating-point tensor of 4 dimensions"
    )
    assert peel.finetune(slim, rows[:1], teacher=model, data=rows, steps=2, batch=8, mixup=0.3).run.tunings


class Reads(nn.Module):
    """Token ids (samples, 5) to four scores."""

    def __init__(self):
        super().__init__()
        self.table, self.inside, self.head = nn.Embedding(9, 8), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, ids):
        return self.head(self.inside(self.table(ids).mean(1)).tanh())


def test_token_ids_are_not_mixed():
    torch.manual_seed(0)
    model, ids = Reads().eval(), torch.randint(0, 9, (20, 5))
    slim = peel.prune(model, ids[:1], flops="60%", align=4).model
    said = "--mixup blends floating-point numbers, and the samples hold none that lie in a batch"
    assert refused((model, slim), ids, ids[:1], mixup=0.2) == said
    labelled = [(row, n % 4) for n, row in enumerate(ids)]
    assert refused((model, slim), labelled, ids[:1], mixup=0.2, distill=0.5) == said


class Alone(nn.Module):
    """One vector of shape (1, 6) at a time."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))

    def forward(self, x):
        return self.body(x.reshape(1, 6))


def test_samples_that_come_one_by_one_are_not_mixed():
    torch.manual_seed(0)
    model, rows = Alone().eval(), torch.randn(20, 6)
    slim = peel.prune(model, rows[:1], flops="60%", align=4).model
    said = refused((model, slim), rows, rows[:1], mixup=0.2)
    assert said == "--mixup blends the samples of a batch, and the model takes one sample at a time"


# --- runs that are not over


@pytest.fixture
def left(pair, own, tmp_path):
    """Settings of a run, by --metric and without --rate, of which the folder has a checkpoint."""
    settings = {"metric": own.replace(":own", ":first"), "checkpoints": tmp_path / "run"}

    def ends(stage, done=0, total=0, text=""):
        if stage == "tune" and total and done == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(PeelError, match="interrupted after step 1 of 2"):
        peel.finetune(
            pair[1], images(1), teacher=pair[0], data=images(20), steps=2, batch=8, progress=ends, evaluate_every=1,
            **settings,
        )  # fmt: skip
    return {**settings, "resume": True, "evaluate_every": 1}


def another(pair, settings, **changed):
    with pytest.raises(UsageError, match=r"the checkpoint in .* is of another run: ") as caught:
        peel.finetune(
            pair[1], images(1), teacher=pair[0], data=images(20), **{"steps": 2, "batch": 8, **settings, **changed}
        )
    return caught.value.message.partition("another run: ")[2]


def test_a_run_goes_on_with_its_own_metric_only(pair, own, left):
    assert another(pair, left, metric=own.replace(":own", ":last")).startswith("--metric was first and is last")
    assert another(pair, left, metric=None).startswith("--metric was first and is not given")
    assert another(pair, left, accumulate=2) == "--accumulate was 1 and is 2"
    done = peel.finetune(pair[1], images(1), teacher=pair[0], data=images(20), steps=2, batch=8, **left)
    assert "resumed after step 1" in done.run.tunings[0].notes


def test_a_rate_is_told_as_a_flag_where_it_was_given_as_one(pair, left):
    said = another(pair, left, batch=4)
    assert said.startswith("--batch was 8 and is 4")
    assert "the rate chosen was 0.00125 and is 0.000625" in said
    assert "--rate" not in said
    assert "--rate was not given and is 0.1" in another(pair, left, rate=0.1)
