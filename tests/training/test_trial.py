"""What can't be learned is said before anything is trained."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import peelcli as peel
from peelcli.errors import UsageError
from peelcli.samples import spread

CLASSES = 5


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, CLASSES)).eval()


def vectors(count: int = 120) -> torch.Tensor:
    return torch.randn(count, 20, generator=torch.Generator().manual_seed(1))


class Read:
    """The same samples, read as they are wanted."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, at):
        return self.rows[at]


def tuned(data, folder, **settings):
    settings = {"steps": 8, "batch": 16, "workers": 0, **settings}
    return peel.finetune(network(), vectors(1), teacher=network(), data=data, checkpoints=folder, **settings)


SMALL = {"one at a time": {"batch": 1}, "parts of one": {"batch": 7, "accumulate": 4}}


@pytest.mark.parametrize("case", SMALL, ids=[name.replace(" ", "-") for name in SMALL])
def test_norms_that_would_see_a_single_sample_are_refused(case, tmp_path):
    with pytest.raises(UsageError, match=r"train mode on a single sample: .*more than 1 value per channel") as caught:
        tuned(vectors(), tmp_path / "run", **SMALL[case])
    assert caught.value.hint.startswith("raise --batch or lower --accumulate")
    assert not (tmp_path / "run").exists()


def test_norms_of_each_process_are_tried_with_its_part_of_the_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="on a single sample"):
        tuned(vectors(), tmp_path / "run", batch=2)


TAKEN = {"uneven parts": {"batch": 10, "accumulate": 4}, "frozen norms": {"batch": 1, "batchnorm": "frozen"}}


@pytest.mark.parametrize("case", TAKEN, ids=[name.replace(" ", "-") for name in TAKEN])
def test_a_batch_that_norms_can_take_is_learned_from(case, tmp_path):
    (found,) = tuned(vectors(), tmp_path / "run", **TAKEN[case]).run.tunings
    assert (found.steps, found.batch) == (8, TAKEN[case]["batch"])
    assert found.curve[-1].step == 8


def labelled(odd, count=120):
    """Class numbers for all but one sample, which is neither among the first nor held out."""
    targets: list[object] = [at % CLASSES for at in range(count)]
    held = spread(count, count // 5)
    targets[next(at for at in range(90, count) if at not in held)] = odd
    return [(x, target) for x, target in zip(vectors(count), targets, strict=True)]


LABELS = [(CLASSES, "the label 5 is no class of this model, which has 5"), (None, "the label None, which is no class")]


@pytest.mark.parametrize(("odd", "words"), LABELS)
def test_labels_that_are_no_classes_are_refused_wherever_they_are(odd, words, tmp_path):
    with pytest.raises(UsageError, match=words) as caught:
        tuned(labelled(odd), tmp_path / "run", distill=0.5)
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("odd", "words"), LABELS)
def test_labels_that_are_read_as_it_goes_are_refused_when_they_come(odd, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        tuned(Read(labelled(odd)), tmp_path / "run", distill=0.5, steps=20)


def test_what_a_model_raises_in_train_mode_is_said(tmp_path):
    class Shy(nn.Linear):
        def forward(self, x):
            if self.training:
                raise RuntimeError("not in\npublic")
            return super().forward(x)

    with pytest.raises(UsageError, match="on 16 samples: RuntimeError: not in public") as caught:
        peel.finetune(Shy(20, 5), vectors(1), teacher=network(), data=vectors(), steps=2, batch=16)
    assert "--batch" not in caught.value.hint


def test_a_model_without_a_derivative_is_refused():
    class InPlace(nn.Linear):
        def forward(self, x):
            y = super().forward(x).exp()
            z = y.sin()
            y += 1
            return y + z

    with pytest.raises(UsageError, match=r"can't be differentiated: RuntimeError: .*inplace operation") as caught:
        peel.finetune(InPlace(20, 5), vectors(1), teacher=network(), data=vectors(), steps=2, batch=16)
    assert "backward" in caught.value.hint


def test_lone_samples_of_a_shape_that_come_later_are_refused_when_they_come(tmp_path):
    """Calls are as large as shapes allow: which ones come together is not known before."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 3))
    rows = [torch.randn(1, 8, 8) for _ in range(59)] + [torch.randn(1, 9, 9)]
    with pytest.raises(UsageError, match="on a single sample"):
        peel.finetune(model.eval(), torch.randn(1, 1, 8, 8), teacher=model, data=rows, epochs=2, batch=16)


class Segmenter(nn.Module):
    """An auxiliary head speaks in train mode."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Tanh())
        self.head, self.aux = nn.Conv2d(16, 5, 1), nn.Linear(16, 5)

    def forward(self, x):
        x = self.body(x)
        found = {"out": self.head(x)}
        return found | {"aux": self.aux(x.mean((2, 3)))} if self.training else found


def test_outputs_that_only_train_mode_has_are_not_compared_with_the_original():
    torch.manual_seed(0)
    original = Segmenter().eval()
    slim = copy.deepcopy(original)
    with torch.no_grad():
        slim.head.weight += 0.1 * torch.randn_like(slim.head.weight)
    x = torch.randn(60, 1, 8, 8)
    (found,) = peel.finetune(slim, x[:1], teacher=original, data=x, steps=20, batch=16).run.tunings
    assert found.after.relative < found.before.relative
