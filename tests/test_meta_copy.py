"""Copies without weights."""

import numpy as np
import torch
from torch import nn

from peelcli.sources import trial
from peelcli.tensors import brief_copy, full_copy, into_own_memory, let_go, meta_copy


def test_no_weights_same_structure():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).half().eval()
    model[0].weight.requires_grad_(False)
    double = meta_copy(model)
    assert all(tensor.is_meta for tensor in double.state_dict().values())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    assert {n: (t.shape, t.dtype) for n, t in double.state_dict().items()} == {
        n: (t.shape, t.dtype) for n, t in model.state_dict().items()
    }
    assert not double.training
    assert [p.requires_grad for p in double.parameters()] == [False, True, True, True]


def test_ties_and_plain_attributes():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model.scale, model.many = torch.ones(3), [torch.ones(2), "x"]
    model.grown = model[0].weight * 2  # no leaf: an ordinary deep copy refuses it
    double = meta_copy(model)
    assert double[1].weight is double[0].weight
    assert double.scale.is_meta
    assert double.many[0].is_meta
    assert double.grown.is_meta
    assert not model.scale.is_meta


def test_no_memory_is_used_for_a_huge_model():
    with torch.device("meta"):
        model = nn.Linear(10**6, 10**6)
    assert meta_copy(model).weight.shape == (10**6, 10**6)


def test_trials_leave_the_module_as_it_was():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    state = torch.get_rng_state()
    assert trial.complaint(model, (torch.ones(1, 3),)) is None
    assert trial.complaint(model, (torch.ones(1, 4),)) == "running_mean should contain 4 elements not 3"
    assert torch.equal(torch.get_rng_state(), state)
    assert model[0].num_batches_tracked == 0
    assert model.training


def test_tensors_made_in_forward_follow():
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return self.fc(x) + torch.arange(3)

    assert trial.on_meta(Adds())((torch.zeros(1, 3),)) is None


def test_a_module_that_can_not_be_copied_says_so():
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("no copies")

    assert trial.complaint(Stubborn(3, 3), (torch.zeros(1, 3),)) == "the module can't be copied: no copies"


def test_a_brief_copy_of_what_lies_in_memory_of_others():
    model = nn.Linear(3, 2)
    model.weight = nn.Parameter(torch.from_numpy(np.ones((2, 3), np.float32)))  # as safetensors reads it, too
    double = brief_copy(model)
    with torch.no_grad():
        double.weight.zero_()
    assert model.weight.sum() == 6


def saved_and_loaded(module, path):
    torch.save(module, path)
    return torch.load(path, weights_only=False)


def test_a_brief_copy_of_what_was_read_from_a_file(tmp_path):
    model = saved_and_loaded(nn.Linear(3, 2), tmp_path / "model.pt")
    double = brief_copy(model)
    assert not torch._C._is_cow_tensor(double.weight)  # else the next line ends the process
    with torch.no_grad():
        double.weight.zero_()
    assert model.weight.any()


def test_what_was_read_from_a_file_comes_into_memory_of_torch(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[1].weight = model[0].weight
    model[1].bias.requires_grad_(False)
    model[2].weight = nn.Parameter(model[0].bias.detach())  # the same memory under two names
    loaded = saved_and_loaded(model, tmp_path / "model.pt")
    into_own_memory(loaded)
    assert loaded[0].weight is loaded[1].weight
    assert not loaded[1].bias.requires_grad
    assert torch._C._is_cow_tensor(brief_copy(loaded)[0].weight)
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in model.state_dict().items())
    with torch.no_grad():
        loaded[0].bias.fill_(7.0)
    assert loaded[2].weight.tolist() == [7.0, 7.0, 7.0]


def test_a_brief_copy_takes_memory_when_one_side_writes():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    before = model[0].weight.detach().clone()
    double = brief_copy(model)
    assert torch._C._is_cow_tensor(double[0].weight)
    assert double[1].weight is double[0].weight is not model[0].weight
    with torch.no_grad():
        double[0].weight.zero_()
    assert torch.equal(model[0].weight, before)
    double = brief_copy(model)
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(double[0].weight, before)


def test_what_is_handed_out_shares_nothing():
    model = nn.Linear(3, 3)
    assert not torch._C._is_cow_tensor(full_copy(model).weight)


def test_a_view_of_larger_memory_is_copied_at_once():
    model = nn.Module()
    model.part = nn.Parameter(torch.arange(12.0).reshape(3, 4)[:, 1:3], requires_grad=False)
    double = brief_copy(model)
    assert not torch._C._is_cow_tensor(double.part)
    model.part.zero_()
    assert double.part.tolist() == [[1, 2], [5, 6], [9, 10]]
    assert not double.part.requires_grad


def test_a_copy_of_what_inference_made_can_be_differentiated():
    with torch.inference_mode():
        model = nn.Linear(2, 2)
    double = brief_copy(model)
    double(torch.ones(1, 2)).sum().backward()
    assert double.weight.grad.tolist() == [[1, 1], [1, 1]]


def test_a_copy_that_was_let_go_keeps_shapes_alone():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    double = brief_copy(model)
    let_go(double)
    assert {name: tensor.shape for name, tensor in double.state_dict().items()} == {
        n: t.shape for n, t in before.items()
    }
    assert all(tensor.untyped_storage().nbytes() <= 8 for tensor in double.state_dict().values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
