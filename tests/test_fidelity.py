"""How far a model is from the original: figures worked by hand, and models that are hard to run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from peelcli import fidelity
from peelcli.devices import check_device
from peelcli.errors import InputError, UsageError
from peelcli.fidelity import Judge, accuracy, compare_distributions, outputs_of, relative_distance, takes_batches
from peelcli.samples import Samples


class Given(nn.Module):
    """Puts out its input through a function of the test's."""

    def __init__(self, function=lambda x: x):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def samples(*rows, targets=None):
    return Samples(tuple((torch.as_tensor(row, dtype=torch.float32)[None],) for row in rows), "test", targets)


def rows(*values):
    return [torch.tensor([value], dtype=torch.float32) for value in values]


LOGITS = samples([2.0, 0.0], [0.0, 3.0], [5.0, 1.0], [-1.0, 1.0])
UNIT = samples([0.25, 0.75], [0.5, 0.25])  # in [0, 1], rows of any sum: values


# --- relative distance


def test_relative_distance_worked_by_hand():
    # mean 2, so the outputs deviate by sqrt(1 + 1); the differences are 1 and 0
    assert relative_distance(rows([1.0], [3.0]), rows([2.0], [3.0])) == pytest.approx(math.sqrt(0.5))


def test_a_model_that_puts_out_the_mean_is_at_one():
    wanted = rows([1.0, 5.0], [3.0, 1.0], [8.0, 0.0])
    assert relative_distance(wanted, rows(*[[4.0, 2.0]] * 3)) == pytest.approx(1.0)


@pytest.mark.parametrize("factor", [1.0, 1.5, -1.0])
def test_a_scaled_output_of_mean_zero_is_as_far_as_its_factor(factor):
    wanted = rows([1.0, -2.0], [-1.0, 2.0])
    found = [factor * output for output in wanted]
    assert relative_distance(wanted, found) == pytest.approx(abs(factor - 1))


def test_what_never_differs_is_measured_by_its_size():
    assert relative_distance(rows([3.0, 4.0]), rows([3.0, 9.0])) == pytest.approx(1.0)
    assert relative_distance(rows([0.1] * 3, [0.1] * 3, [0.1] * 3), rows(*[[0.2] * 3] * 3)) == pytest.approx(1.0)
    assert relative_distance(rows([0.0]), rows([0.0])) == 0.0
    assert relative_distance(rows([0.0]), rows([1.0])) == math.inf


def test_outputs_of_different_shapes_have_one_mean_row():
    wanted = [torch.tensor([[[1.0, 10.0], [3.0, 20.0]]]), torch.tensor([[[5.0, 30.0]]])]
    found = [torch.tensor([[[3.0, 20.0], [3.0, 20.0]]]), torch.tensor([[[3.0, 20.0]]])]
    assert relative_distance(wanted, found) == pytest.approx(1.0)
    wanted, found = [torch.ones(1, 2), torch.full((1, 4), 4.0)], [torch.full((1, 2), 3.0), torch.full((1, 4), 3.0)]
    assert relative_distance(wanted, found) == pytest.approx(1.0)
    assert relative_distance([torch.ones(0, 4), torch.ones(1, 4)], [torch.ones(0, 4), torch.ones(1, 4)]) == 0.0


def test_what_can_t_be_compared_is_infinitely_far():
    assert relative_distance(rows([1.0], [2.0]), rows([math.nan], [2.0])) == math.inf
    assert relative_distance(rows([1.0], [2.0]), rows([math.inf], [2.0])) == math.inf
    assert relative_distance(rows([1.0], [2.0]), rows([1.0, 1.0], [2.0])) == math.inf


def test_numbers_that_the_original_masks_are_left_out():
    assert relative_distance(rows([1.0, -math.inf], [3.0, 1.0]), rows([2.0, -math.inf], [3.0, 1.0])) == pytest.approx(
        math.sqrt(0.5)
    )


# --- distributions


def test_divergence_of_two_known_distributions():
    # KL((1/2, 1/2), (1/4, 3/4)) = 1/2 ln 2 + 1/2 ln 2/3 = 1/2 ln 4/3
    kl, same = compare_distributions(rows([0.5, 0.5]), rows([0.25, 0.75]), "probabilities")
    assert kl == pytest.approx(0.5 * math.log(4 / 3))
    assert same == 0.0
    logits = compare_distributions(rows([7.0, 7.0]), rows([0.0, math.log(3.0)]), "logits")
    assert logits == (pytest.approx(kl), same)


def test_divergence_is_a_mean_over_samples_and_positions():
    wanted = [torch.tensor([[[0.0, 0.0], [4.0, 0.0]]]), torch.tensor([[[0.0, 4.0]]])]
    found = [torch.tensor([[[math.log(3.0), 0.0], [4.0, 0.0]]]), torch.tensor([[[0.0, 4.0]]])]
    kl, same = compare_distributions(wanted, found, "logits")
    assert kl == pytest.approx(0.5 * math.log(4 / 3) / 3)
    assert same == 1.0


def test_large_outputs_are_compared_in_pieces(monkeypatch):
    torch.manual_seed(0)
    wanted, found = [torch.randn(1, 50, 7)], [torch.randn(1, 50, 7)]
    whole = compare_distributions(wanted, found, "logits")
    monkeypatch.setattr(fidelity, "_CHUNK", 20)
    assert compare_distributions(wanted, found, "logits") == pytest.approx(whole)


def test_no_probability_is_never_a_nan():
    kl, same = compare_distributions(rows([1.0, 0.0]), rows([1.0, 0.0]), "probabilities")
    assert (kl, same) == (0.0, 1.0)
    kl, _ = compare_distributions(rows([1.0, 0.0]), rows([0.0, 1.0]), "probabilities")
    assert 80 < kl < 90
    masked = rows([1.0, -math.inf])
    assert compare_distributions(masked, masked, "logits") == (0.0, 1.0)
    assert compare_distributions(rows([1.0, 0.0]), masked, "logits") == (math.inf, 1.0)


def test_rows_that_are_no_distribution():
    assert compare_distributions(rows([1.0, 0.0], [0.0, 1.0]), rows([math.nan, 0.0], [0.0, 1.0]), "logits") == (
        math.inf,
        0.5,
    )
    assert compare_distributions(rows([math.nan, 0.0], [0.0, 1.0]), rows([1.0, 0.0], [0.0, 1.0]), "logits") == (0, 1)
    assert compare_distributions(rows([1.0, 0.0]), rows([1.0, 0.0, 2.0]), "logits") == (math.inf, 0.0)


def test_accuracy_by_hand():
    assert accuracy(rows([2.0, 1.0], [0.0, 1.0], [math.nan, 3.0], [1.0, 0.0]), [0, 0, 0, 0]) == 0.5


# --- the judge


def test_equal_models_are_not_apart():
    net = nn.Linear(2, 3)
    found = Judge(net, LOGITS).distance(net)
    assert (found.relative, found.kl, found.agreement, found.metric) == (0.0, 0.0, 1.0, None)


def test_logits_are_compared_as_distributions():
    found = Judge(Given(), LOGITS).distance(Given(lambda x: -x))
    deviation = math.sqrt(0.5**2 + 1.5**2 + 3.5**2 + 2.5**2 + 1.25**2 + 1.75**2 + 0.25**2 + 0.25**2)
    assert found.relative == pytest.approx(2 * math.sqrt(4 + 9 + 26 + 2) / deviation)
    assert found.agreement == 0.0
    gaps = [2.0, 3.0, 4.0, 2.0]  # KL between logits (d, 0) and (-d, 0) is d tanh(d / 2)
    assert found.kl == pytest.approx(sum(d * math.tanh(d / 2) for d in gaps) / 4)


def test_values_have_no_classes():
    judge = Judge(Given(), UNIT)
    found = judge.distance(Given(lambda x: x + 0.25))
    assert (found.kl, found.agreement, found.metric, judge.metric_name) == (None, None, None, "")
    assert found.relative > 0


def test_probabilities_are_taken_as_they_are():
    held = samples([0.5, 0.5], [0.5, 0.5])
    found = Judge(Given(), held).distance(Given(lambda x: x * torch.tensor([0.5, 1.5])))
    assert found.kl == pytest.approx(0.5 * math.log(4 / 3))


def test_labels_give_an_accuracy():
    held = Samples(LOGITS.inputs, "test", (0, torch.tensor(1), 0, 0))
    judge = Judge(Given(), held)
    assert (judge.metric_name, judge.original, judge.held) == ("accuracy", 0.75, 4)
    assert judge.distance(Given(lambda x: -x)).metric == 0.25


@pytest.mark.parametrize("targets", [None, (0.5, 1.0, 0.0, 2.0), ("a", "b", "c", "d"), (0, 1, -1, 0)])
def test_targets_that_are_no_classes_give_none(targets):
    judge = Judge(Given(), Samples(LOGITS.inputs, "test", targets))
    assert (judge.metric_name, judge.original) == ("", None)


@pytest.mark.parametrize("targets", [(0.5, 1.0, 0.0, 2.0), ("a", "b", "c", "d"), (-1, -1, -1, -1), ([0, 1],) * 4])
def test_targets_that_give_no_accuracy_are_told_of(targets):
    held = Samples(LOGITS.inputs, "test", targets)
    (note,) = Judge(Given(), held).look_at_targets(held)
    assert "no class numbers" in note
    assert Judge(Given(), held, lambda outputs, _: 1.0, "one").look_at_targets(held) == ()


@pytest.mark.parametrize(("odd", "said"), [(2, "label 2 is no class"), (-100, "label -100"), (None, "one is NoneType")])
def test_a_single_odd_label_among_samples_that_nobody_is_judged_by(odd, said):
    judge = Judge(Given(), Samples(LOGITS.inputs, "test", (0, 1, 0, 0)))
    assert judge.look_at_targets(Samples(LOGITS.inputs, "test", (0, 1, 1, 0))) == ()
    assert judge.look_at_targets(LOGITS) == ()
    with pytest.raises(UsageError, match=said) as caught:
        judge.look_at_targets(Samples(LOGITS.inputs, "test", (0, 1, odd, 0)))
    assert caught.value.hint


def test_one_of_several_outputs_is_judged_and_that_is_told():
    several = Given(lambda x: (x, 2 * x, x[:, :0]))
    assert Judge(several, LOGITS).notes == (
        "compared by the first of the model's 2 outputs: --metric can judge by others",
    )
    assert Judge(several, LOGITS, lambda outputs, _: 1.0, "one").notes == ()
    assert Judge(Given(lambda x: {"hidden": x, "logits": x}), LOGITS).notes == ()
    assert Judge(Given(), LOGITS).notes == ()


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(UsageError, match="the label 2 is no class of this model, which has 2"):
        Judge(Given(), Samples(LOGITS.inputs, "test", (0, 1, 2, 0)))


def test_a_metric_of_the_user_s_comes_before_accuracy():
    held = Samples(LOGITS.inputs, "test", (0, 1, 0, 0))
    seen = []

    def total(outputs, targets):
        seen.append((outputs["y"].shape, targets.tolist()))
        return float(outputs["y"].sum())

    judge = Judge(Given(lambda x: {"y": x}), held, total, "total")
    assert (judge.metric_name, judge.original) == ("total", 11.0)
    assert judge.distance(Given(lambda x: {"y": 2 * x})).metric == 22.0
    assert seen == [((4, 2), [0, 1, 0, 0])] * 2


def test_a_slim_model_that_is_broken_is_never_the_best():
    held = Samples(LOGITS.inputs, "test", (0, 1, 0, 0))
    broken = Given(lambda x: x * math.nan)
    found = Judge(Given(), held).distance(broken)
    assert (found.relative, found.kl, found.agreement, found.metric) == (math.inf, math.inf, 0.0, 0.0)
    assert Judge(Given(), held, lambda outputs, _: 1.0, "one").distance(broken).metric == -math.inf


def test_an_original_without_a_finite_number_is_refused():
    with pytest.raises(InputError, match="the model's outputs on test hold no finite number"):
        Judge(Given(lambda x: x * math.nan), LOGITS)


def test_large_outputs_mean_fewer_samples(monkeypatch):
    monkeypatch.setattr(fidelity, "MOST_NUMBERS", 6)
    held = samples(*[[float(n), 1.0] for n in range(9)])
    judge = Judge(Given(), held)
    assert judge.held == 3
    assert judge.notes == ("compared on 3 of 9 held-out samples: their outputs are large",)
    assert judge.distance(Given()).relative == 0.0


# --- running models


def test_the_model_and_the_samples_stay_as_they_are():
    net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.ReLU(inplace=True)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first, second = outputs_of(net, LOGITS), outputs_of(net, LOGITS)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(child.training for child in net.modules())
    assert not any(output.requires_grad for output in first)
    held = samples([1.0, 2.0], [3.0, 4.0])
    outputs_of(Given(lambda x: x.mul_(2)), held)
    assert held.inputs[0][0].tolist() == [[1.0, 2.0]]


def test_forward_s_own_randomness_is_seeded():
    net = Given(lambda x: x + torch.randn(()))
    state = torch.get_rng_state()
    assert Judge(net, samples([1.0, 2.0])).distance(net).relative == 0.0
    assert torch.equal(torch.get_rng_state(), state)


def counting(function=lambda x: x):
    """A model, and the batch sizes that it was called with."""
    sizes = []

    def call(x):
        sizes.append(len(x))
        return function(x)

    return Given(call), sizes


def test_samples_run_in_batches_after_the_first():
    net, sizes = counting()
    held = samples(*[[float(n)] for n in range(20)])
    outputs = outputs_of(net, held)
    assert [output.tolist() for output in outputs] == [[[float(n)]] for n in range(20)]
    assert sizes == [1, 16, 3]


def test_samples_of_different_shapes_keep_their_order():
    held = samples([1.0], [2.0], [3.0, 4.0], [5.0, 6.0], [7.0])
    assert [output.flatten().tolist() for output in outputs_of(Given(), held)] == [
        [1.0], [2.0], [3.0, 4.0], [5.0, 6.0], [7.0]
    ]  # fmt: skip


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.T,  # the batch is not the first dimension
        lambda x: x.reshape(len(x) * 3, -1) if len(x) == 1 else x[:1],  # as many rows as it likes
        lambda x: x.expand(1, 3),  # a program of fixed shapes
    ],
)
def test_models_that_take_no_batch_run_one_by_one(function):
    net, sizes = counting(function)
    held = samples(*[[float(n), 1.0, 2.0] for n in range(4)])
    outputs = outputs_of(net, held)
    assert [o.tolist() for o in outputs] == [function(inputs[0]).tolist() for inputs in held.inputs]
    assert sizes.count(1) == 4
    assert len(sizes) <= 5


@dataclass
class Answer:
    logits: torch.Tensor
    more: object = None


def test_outputs_in_a_class_of_the_user_s():
    judge = Judge(Given(lambda x: Answer(x)), LOGITS, lambda outputs, _: float(len(outputs)), "count")
    found = judge.distance(Given(lambda x: Answer(x + 1)))
    assert (found.metric, found.agreement) == (4.0, 1.0)
    assert found.kl == pytest.approx(0.0, abs=1e-9)


def test_token_logits_agree_by_position():
    held = samples([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [3.0, 1.0]])
    judge = Judge(Given(lambda x: {"logits": x}), held)
    flipped = Given(lambda x: {"logits": x * torch.tensor([[1.0], [-1.0]])})
    assert judge.distance(flipped).agreement == 0.5


# --- devices


def test_devices_of_this_machine():
    assert check_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:-1", "CUDA", "", "cuda:1x"])
def test_devices_that_nobody_has(text):
    with pytest.raises(UsageError, match="is no device that peel knows"):
        check_device(text)


def test_devices_that_are_not_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="torch sees no CUDA device here"):
        check_device("cuda:1")
    with pytest.raises(UsageError, match="torch sees no MPS device here"):
        check_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert check_device("cuda:1").index == 1
    with pytest.raises(UsageError, match=r"--device cuda:2: the last CUDA device here is cuda:1"):
        check_device("cuda:2")


# --- batches


def test_whether_rows_of_an_output_are_samples():
    assert takes_batches(Given(), LOGITS)
    assert not takes_batches(Given(lambda x: x.reshape(1, -1)), LOGITS)
    assert not takes_batches(Given(lambda x: x.mean()), LOGITS)
    assert not takes_batches(Given(lambda x: x @ torch.ones(1, 2).expand(2, 2) if len(x) == 1 else x.view(3)), LOGITS)
    other = Samples(((torch.zeros(1, 2),), (torch.zeros(1, 3),)), "of several shapes")
    assert takes_batches(Given(lambda x: x.reshape(1, -1)), other)  # never more than one at a time anyway
