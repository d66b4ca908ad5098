"""Weights that nothing can be measured on."""

import pytest
import torch
from torch import nn

from peelcli.errors import SourceError
from peelcli.sources.sound import check


def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("tensor", ["0.weight", "1.running_mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_nan_and_infinity_are_refused(bad, tensor, dtype):
    module = build().to(dtype)
    with torch.no_grad():
        module.state_dict()[tensor].view(-1)[1] = bad
    with pytest.raises(SourceError, match=f"model has NaN or infinite weights: {tensor}$"):
        check(module, "model")


def test_three_names_and_a_count():
    module = build()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(SourceError, match=r"0\.weight, 0\.bias, 1\.weight and 3 more"):
        check(module, "model")


def test_masks_of_minus_infinity_are_fine():
    module = build()
    module.register_buffer("mask", torch.full((2, 2), float("-inf")))
    module.register_buffer("eight_bits", torch.ones(2).to(torch.float8_e4m3fn))
    check(module, "model")
    module.mask[0] = float("nan")
    with pytest.raises(SourceError, match="mask"):
        check(module, "model")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Sequential(nn.ReLU()), "has no parameters"),
        (nn.LazyLinear(3), "was never run: weight, bias have no shape yet"),
        (nn.Linear(2, 2, device="meta"), "has no weights: weight, bias are on the meta device"),
        (torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), "is a TorchScript module"),
    ],
    ids=["empty", "lazy", "meta", "script"],
)
def test_nothing_to_work_with(module, said):
    with pytest.raises(SourceError) as caught:
        check(module, "model")
    assert said in caught.value.message
    assert caught.value.hint
