"""What is handed out as a product and what is not, in every form in which torch is asked for one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations

from peelcli.products import Product, python_functions_open, watching
from tests.support import zoo
from tests.support.parts import Lambda


def seen_in(module: nn.Module, *inputs: Any) -> list[Product]:
    """The products of one forward, in order."""
    found = []

    def handler(product: Product, run: Callable[[], torch.Tensor]) -> torch.Tensor:
        found.append(product)
        return run()

    with torch.no_grad(), watching(module, handler):
        module(*inputs)
    return found


def called(module: nn.Module, *inputs: Any) -> list[tuple[str, int, str]]:
    return [(p.name, p.call, p.kind) for p in seen_in(module, *inputs)]


class Bare(nn.Module):
    """Weights, and what is done with them."""

    def __init__(self, function: Callable[[Any], Any], **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))
        self.function = function

    def forward(self) -> Any:
        return self.function(self)


def test_a_convolution_worked_by_hand():
    net = nn.Conv2d(4, 6, (3, 4), stride=2, padding="valid", dilation=(2, 1), groups=2)
    (product,) = seen_in(net, x := torch.randn(2, 4, 9, 9))
    assert (product.name, product.call, product.kind, product.channel_dim) == ("weight", 0, "conv", 1)
    assert product.x is x
    assert product.weight is net.weight
    assert product.bias is net.bias
    assert (product.stride, product.dilation, product.groups) == ((2, 2), (2, 1), 2)
    assert product.padding == ((0, 0), (0, 0))
    assert product.matrix().shape == (2, 3, 2, 12)
    assert torch.equal(product.matrix()[1, 0, 1], net.weight[3, 1].flatten())


@pytest.mark.filterwarnings("ignore:Using padding")  # that it may be slow
def test_the_odd_zero_of_same_is_behind():
    (product,) = seen_in(nn.Conv2d(1, 1, (4, 3), padding="same", dilation=(3, 2)), torch.randn(1, 1, 9, 9))
    assert product.padding == ((4, 5), (2, 2))


X1, X2, X3 = torch.randn(2, 4, 9), torch.randn(2, 4, 9, 9), torch.randn(2, 4, 5, 5, 5)
ROWS = torch.randn(5, 4)

HANDED_OUT = {
    "ints": lambda m: torch.conv2d(X2, m.w, None, 2, 1, 1, 2),
    "one number in a list": lambda m: F.conv2d(X2, m.w, stride=[2], padding=[1], groups=2),
    "all by name": lambda m: F.conv2d(input=X2, weight=m.w, bias=None, stride=(2, 2), padding=(1, 1), groups=2),
    "some by name": lambda m: F.conv2d(X2, m.w, stride=2, padding=1, groups=2),
}


@pytest.mark.parametrize("form", HANDED_OUT)
def test_forms_of_a_convolution(form):
    (product,) = seen_in(Bare(HANDED_OUT[form], w=(6, 2, 3, 3)))
    assert (product.stride, product.padding, product.dilation) == ((2, 2), ((1, 1), (1, 1)), (1, 1))
    assert (product.groups, product.bias) == (2, None)


@pytest.mark.parametrize(("call", "x"), [(F.conv1d, X1), (F.conv2d, X2), (F.conv3d, X3)])
def test_convolutions_of_every_rank(call, x):
    rank = x.dim() - 2
    (product,) = seen_in(Bare(lambda m: call(x, weight=m.w), w=(6, 4, *(3,) * rank)))
    assert (product.kind, product.stride, product.padding) == ("conv", (1,) * rank, ((0, 0),) * rank)


@pytest.mark.parametrize(("call", "x"), [(F.conv_transpose1d, X1), (F.conv_transpose2d, X2), (F.conv_transpose3d, X3)])
@pytest.mark.parametrize("by_name", [True, False])
def test_transposed_convolutions(call, x, by_name):
    rank = x.dim() - 2

    def forward(m: Any) -> torch.Tensor:
        return call(input=x, weight=m.w, groups=2, stride=2) if by_name else call(x, m.w, None, 2, 0, 0, 2)

    net = Bare(forward, w=(4, 3, *(2,) * rank))
    (product,) = seen_in(net)
    assert (product.kind, product.groups, product.channel_dim) == ("transposed", 2, 1)
    matrix = product.matrix()
    assert matrix.shape == (2, 3, 2, 2**rank)
    # the kernel is as wide as the stride, so every input position makes a block of its own
    blocks = torch.einsum("goik,ngi...->ngok...", matrix, x.unflatten(1, (2, 2))).flatten(1, 2)
    out = net()
    for dim in range(2, x.dim()):
        out = out.unfold(dim, 2, 2)
    assert torch.allclose(out.flatten(-rank).movedim(-1, 2), blocks, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4), (2, 3, 5, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers(shape, bias):
    net = nn.Linear(4, 6, bias=bias)
    (product,) = seen_in(net, torch.randn(shape))
    assert (product.kind, product.flipped, product.channel_dim) == ("linear", False, -1)
    assert product.bias is net.bias
    assert torch.equal(product.matrix(), net.weight[None, :, :, None])


@pytest.mark.parametrize(
    "form",
    [
        lambda m: ROWS @ m.w,
        lambda m: torch.matmul(ROWS, other=m.w),
        lambda m: torch.matmul(input=ROWS, other=m.w),
        lambda m: torch.mm(ROWS, mat2=m.w),
        lambda m: ROWS.mm(m.w),
        lambda m: ROWS.matmul(other=m.w),
        lambda m: torch.linalg.matmul(ROWS, m.w),
        lambda m: torch.addmm(m.b, ROWS, m.w),
        lambda m: torch.addmm(input=m.b, mat1=ROWS, mat2=m.w, beta=1),
        lambda m: m.b.addmm(ROWS, mat2=m.w),
        lambda m: m.w.__rmatmul__(ROWS),
    ],
)
def test_forms_of_a_product_with_a_matrix(form):
    net = Bare(form, w=(4, 6), b=(6,))
    (product,) = seen_in(net)
    assert (product.name, product.call, product.kind, product.flipped) == ("w", 0, "linear", True)
    assert product.x is ROWS
    bias = 0 if product.bias is None else product.bias
    assert torch.allclose(product.x @ product.matrix()[0, :, :, 0].t() + bias, net(), atol=1e-6)


NOT_HANDED_OUT = {
    "no batch": lambda m: F.conv2d(X2[0], m.conv),
    "no batch, transposed": lambda m: F.conv_transpose2d(X2[0], m.conv.transpose(0, 1)),
    "one row": lambda m: F.linear(ROWS[0], m.square),
    "one row, a matrix": lambda m: ROWS[0] @ m.square,
    "one output": lambda m: F.linear(ROWS, m.vector),
    "a matrix times a vector": lambda m: ROWS @ m.vector,
    "the weight in front": lambda m: m.square @ ROWS.t(),
    "a computed weight": lambda m: F.linear(ROWS, m.square * 2),
    "a slice": lambda m: F.linear(ROWS, m.square[:2]),
    "a transposed weight": lambda m: ROWS @ m.square.t(),
    "weight standardisation": lambda m: F.conv2d(X2, (m.conv - m.conv.mean(0)) / m.conv.std(0)),
    "scaled": lambda m: torch.addmm(m.vector, ROWS, m.square, alpha=2),
    "bias scaled": lambda m: torch.addmm(m.vector, ROWS, m.square, beta=0.5),
    "a sum instead of a bias": lambda m: torch.addmm(ROWS, ROWS, m.square),
    "a bias for each row": lambda m: F.linear(ROWS, m.square, ROWS),
    "one bias for all": lambda m: torch.addmm(m.vector[:1], ROWS, m.square),
    "batched matrices": lambda m: ROWS @ m.cube,
    "bilinear": lambda m: F.bilinear(ROWS, ROWS, m.cube),
    "element by element": lambda m: ROWS * m.vector,
}


@pytest.mark.parametrize("form", NOT_HANDED_OUT)
def test_what_is_no_product(form):
    net = Bare(NOT_HANDED_OUT[form], conv=(6, 4, 3, 3), square=(4, 4), vector=(4,), cube=(2, 4, 4))
    net()
    assert seen_in(net) == []


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_recurrent_layers_are_one_op(cell):
    assert called(cell(4, 6, batch_first=True), torch.randn(2, 3, 4)) == []


def test_computed_weights_of_torch_s_own():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        old = nn.utils.weight_norm(nn.Linear(4, 4))
    net = nn.Sequential(
        old, parametrizations.weight_norm(nn.Linear(4, 4)), parametrizations.spectral_norm(nn.Linear(4, 4))
    )
    assert called(net, ROWS) == []


def test_a_weight_that_two_layers_share_is_counted():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    wanted = [("0.weight", 0, "linear"), ("1.weight", 0, "linear"), ("0.weight", 1, "linear")]
    assert called(net, ROWS) == wanted
    assert called(net, ROWS) == wanted  # counted for each watch


def test_calls_that_are_not_handed_out_count():
    def forward(m: Any) -> None:
        F.linear(ROWS[0], m.w)
        torch.addmm(m.b, ROWS, m.w, alpha=2)
        F.linear(ROWS, m.w)

    assert called(Bare(forward, w=(4, 4), b=(4,))) == [("w", 2, "linear")]


def test_a_buffer_is_a_weight():
    net = Lambda(lambda self, x: F.conv2d(x, self.blur, groups=4))
    net.register_buffer("blur", torch.ones(4, 1, 3, 3))
    assert called(net, X2) == [("blur", 0, "conv")]


def test_a_weight_that_is_replaced_leaves_its_place_to_no_other():
    def forward(m: Any) -> None:
        m.w = nn.Parameter(torch.randn(4, 4))
        for _ in range(100):  # one of these would get the id of the first
            F.linear(ROWS, torch.randn(4, 4))

    assert called(Bare(forward, w=(4, 4))) == []


# --- functions that torch writes in Python


def attention(**options: Any) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(8, 2, batch_first=True, **options).eval()


def test_self_attention_multiplies_with_the_packed_weight():
    x = torch.randn(2, 3, 8)
    wanted = [("in_proj_weight", 0, "linear"), ("out_proj.weight", 0, "linear")]
    assert called(attention(), x, x, x) == wanted
    packed, _ = seen_in(attention(), x, x, x)
    assert packed.matrix().shape == (1, 24, 8, 1)


def test_cross_attention_multiplies_with_slices():
    x, y = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    assert called(attention(), x, y, y) == [("out_proj.weight", 0, "linear")]


def test_cross_attention_with_weights_of_its_own():
    x, y, z = torch.randn(2, 3, 8), torch.randn(2, 5, 6), torch.randn(2, 5, 4)
    names = [name for name, *_ in called(attention(kdim=6, vdim=4), x, y, z)]
    assert names == ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]


def test_the_fast_path_of_an_encoder_is_not_taken():
    names = [name for name, *_ in called(nn.TransformerEncoderLayer(8, 2, 16).eval(), torch.randn(3, 2, 8))]
    assert names == ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"]


@pytest.mark.parametrize("fast", [True, False])
def test_python_functions_are_as_before_afterwards(fast):
    before = F.has_torch_function, torch._tensor.has_torch_function, torch.functional.has_torch_function_unary
    switch = torch.backends.mha
    switch.set_fastpath_enabled(fast)

    @python_functions_open()
    @python_functions_open()
    def fail() -> None:
        assert not switch.get_fastpath_enabled()
        assert F.has_torch_function is not before[0]
        _ = 1 / 0

    try:
        with pytest.raises(ZeroDivisionError):
            fail()
        assert switch.get_fastpath_enabled() is fast
    finally:
        switch.set_fastpath_enabled(True)
    assert before == (
        F.has_torch_function, torch._tensor.has_torch_function, torch.functional.has_torch_function_unary
    )  # fmt: skip


# --- handlers


def test_the_pass_goes_on_with_what_the_handler_returns():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad(), watching(net, lambda product, run: torch.zeros_like(run())) as mode:
        assert net(ROWS).abs().max() == 0
    assert mode.calls == {"0.weight": 1, "2.weight": 1}


def test_all_other_calls_are_told():
    told = []
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    with torch.no_grad(), watching(net, lambda _, run: run(), lambda *call: told.append(call)):
        net(X2)
    functions = [function for function, *_ in told]
    assert torch.batch_norm in functions
    assert torch.conv2d not in functions
    function, args, kwargs, out = next(call for call in told if call[0] is torch.batch_norm)
    assert args[3] is net[1].running_mean
    assert torch.equal(function(*args, **kwargs), out)


def test_gradients_are_the_same_as_without():
    net = zoo.subject("resnet").module.eval()
    x = torch.randn(2, 3, 16, 16)
    net(x).square().sum().backward()
    plain = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    outs = []

    def handler(product: Product, run: Callable[[], torch.Tensor]) -> torch.Tensor:
        outs.append(run())
        return outs[-1]

    with watching(net, handler):
        net(x).square().sum().backward()
    assert all(out.requires_grad for out in outs)
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), plain, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Flatten(2), nn.Linear(49, 3)).to(dtype)
    products = seen_in(net, X2.to(dtype))
    assert [(p.name, p.matrix().dtype) for p in products] == [("0.weight", dtype), ("2.weight", dtype)]


def test_a_call_that_torch_refuses_is_refused_by_torch():
    with pytest.raises(RuntimeError, match="Given groups=1"):
        seen_in(nn.Conv2d(4, 6, 3), torch.randn(2, 5, 9, 9))
