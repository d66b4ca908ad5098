"""Models whose first dimension is time, and those whose first dimension counts samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from peelcli.config import Calibration
from peelcli.errors import InputError
from peelcli.evidence import gather
from peelcli.records import Subject
from peelcli.sources.data import load_samples
from peelcli.sources.data.batches import rows_are_samples
from tests.support.parts import Lambda

STEPS = (9, 1, 6)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def recurrent(batch_first: bool = False, last: bool = True) -> nn.Module:
    torch.manual_seed(0)

    def forward(self, x):
        steps = self.lstm(x)[0]
        return self.fc(steps[:, -1] if last and batch_first else steps[-1] if last else steps)

    return Lambda(forward, lstm=nn.LSTM(6, 8, batch_first=batch_first), fc=nn.Linear(8, 3)).eval()


def attention(permuted: bool) -> nn.Module:
    torch.manual_seed(0)

    def forward(self, x):
        x = x.transpose(0, 1) if permuted else x
        x = self.mix(x, x, x)[0]
        return x.transpose(0, 1) if permuted else x

    return Lambda(forward, mix=nn.MultiheadAttention(6, 2)).eval()


BATCHES = {
    "convolution": (nn.Conv1d(6, 4, 1), True),
    "several rows a sample": (Lambda(lambda self, x: self.fc(x).flatten(0, 1), fc=nn.Linear(6, 4)), True),
    "norm over the batch": (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6, track_running_stats=False)), True),
    "as many rows as it finds": (Lambda(lambda self, x: x[x[:, :, 0] > 0]), True),
    "one number": (Lambda(lambda self, x: self.fc(x).sum(), fc=nn.Linear(6, 4)), True),
    "does not run": (Lambda(lambda self, x: self.fc(x), fc=nn.Linear(5, 4)), True),
    "recurrent, batch first": (recurrent(batch_first=True), True),
    "recurrent, batch first, all steps": (recurrent(batch_first=True, last=False), True),
    "attention, permuted": (attention(True), True),
    "recurrent, last step": (recurrent(), False),
    "recurrent, all steps": (recurrent(last=False), False),
    "attention, time first": (attention(False), False),
}


@pytest.mark.parametrize("name", BATCHES, ids=[name.replace(" ", "-") for name in BATCHES])
def test_which_first_dimensions_are_batches(name):
    module, answer = BATCHES[name]
    module.eval()
    x = drawn(9, 6, 1) if name == "convolution" else drawn(*STEPS)
    subject = Subject(module, (x[:1],), "net")
    assert rows_are_samples(subject, (x,)) == answer
    assert rows_are_samples(subject, (x[:1],))  # of one row there is nothing to tell


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("form", ["list", "pairs", "array", "numpy"])
def test_sequences_stay_whole(form, last):
    subject = Subject(recurrent(last=last), (drawn(*STEPS),), "net")
    every = drawn(12, *STEPS)
    given = {"list": list(every), "pairs": [(x, 1) for x in every], "array": every, "numpy": every.numpy()}[form]
    found = load_samples(given, subject, Calibration(data=given))
    assert [tuple(x.shape) for (x,) in found.inputs] == [STEPS] * 12
    assert torch.equal(torch.stack([x for (x,) in found.inputs]), every)
    assert found.targets == ((1,) * 12 if form == "pairs" else None)


def test_what_is_judged_is_whole_sequences():
    subject = Subject(recurrent(), (drawn(*STEPS),), "net")
    _, evidence = gather(subject, Calibration(data=list(drawn(20, *STEPS))), 0)
    assert evidence.fit.single
    assert (len(evidence.fit), evidence.judge.held) == (16, 4)


def test_an_array_with_the_steps_first_holds_no_samples():
    subject = Subject(recurrent(), (drawn(*STEPS),), "net")
    with pytest.raises(InputError, match="counts no samples") as caught:
        load_samples(np.zeros((9, 30, 6), np.float32), subject, Calibration())
    assert "9x1x6" in caught.value.hint
