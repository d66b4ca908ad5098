"""Two forward passes side by side: order, weights changed on the way, errors, and no thread left behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from peelcli.products import python_functions_open
from peelcli.surgery.walk import Walk
from tests.support import zoo
from tests.support.parts import Lambda

X = torch.randn(2, 4)


@pytest.fixture(autouse=True)
def opened_and_no_thread_left() -> Iterator[None]:
    before = threading.active_count()
    with python_functions_open():
        yield
    assert threading.active_count() == before


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


def forward(function: Callable[[Any, torch.Tensor], Any]) -> Lambda:
    """A module with two linear layers."""
    return Lambda(function, one=nn.Linear(4, 4), two=nn.Linear(4, 4))


def to_the_end(walk: Walk) -> list[str]:
    names = []
    while (product := walk.advance()) is not None:
        assert walk.product is product
        names.append(product.name)
    return names


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "tied_embedding", "conv3d"])
def test_a_walk_to_the_end_gives_what_a_call_gives(name):
    subject = zoo.subject(name)
    net, inputs = subject.module.eval(), subject.inputs
    with torch.no_grad():
        wanted = net(*inputs)
    with Walk(net, inputs) as walk:
        assert walk.product is None
        names = to_the_end(walk)
        assert walk.product is None
        assert torch.equal(walk.output, wanted)
        assert walk.advance() is None  # and again, without waiting for ever
    assert len(names) > 2


def test_where_it_stands():
    net = chain()
    with Walk(net, (X,)) as walk:
        product = walk.advance()
        assert (product.name, product.call, product.x is X) == ("0.weight", 0, True)
        out = walk.compute()
        assert torch.equal(out, net[0](X))
        assert walk.compute() is out
        assert walk.product is product
        product = walk.advance()
        assert product.name == "2.weight"
        assert torch.equal(product.x, out.relu())
        assert walk.output is None


def test_two_side_by_side():
    original, slim = chain(), chain()
    with Walk(original, (X,)) as a, Walk(slim, (X,)) as b:
        while (p := a.advance()) is not None:
            q = b.advance()
            assert (p.name, p.call) == (q.name, q.call)
            slim.get_submodule(q.name.removesuffix(".weight")).load_state_dict(
                original.get_submodule(p.name.removesuffix(".weight")).state_dict()
            )
            assert torch.equal(p.x, q.x)  # what was changed so far is what the pass went on with
        assert b.advance() is None
        assert torch.equal(a.output, b.output)


@pytest.mark.parametrize("compute", [True, False])
def test_a_weight_changed_while_it_stands_counts(compute):
    net = nn.Linear(4, 3)
    with Walk(net, (X,)) as walk:
        walk.advance()
        net.weight.data.zero_()
        net.bias.data.fill_(7.0)
        if compute:
            assert torch.equal(walk.compute(), torch.full((2, 3), 7.0))
        walk.advance()
        assert torch.equal(walk.output, torch.full((2, 3), 7.0))


def test_a_weight_changed_after_it_was_computed_does_not_count():
    net = nn.Linear(4, 3)
    with Walk(net, (X,)) as walk:
        walk.advance()
        out = walk.compute().clone()
        net.weight.data.zero_()
        walk.advance()
        assert torch.equal(walk.output, out)


def test_only_one_thread_runs_at_a_time():
    steps: list[str] = []
    note = {name: forward(lambda self, x, n=name: steps.append(n) or self.two(self.one(x))) for name in "ab"}
    with Walk(note["a"], (X,)) as a, Walk(note["b"], (X,)) as b:
        for walk in (b, a, a, b):
            walk.advance()
            steps.append(walk.product.name)
    assert steps == ["b", "one.weight", "a", "one.weight", "two.weight", "two.weight"]


def test_all_other_calls_are_told():
    told = []
    with Walk(chain(), (X,), lambda function, *_: told.append(function.__name__)) as walk:
        to_the_end(walk)
    assert told.count("relu") == 2


# --- modes


@pytest.mark.parametrize("inference", [True, False])
def test_nothing_has_gradients(inference):
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4), nn.ReLU(inplace=True))
    with torch.inference_mode(inference):
        walk = Walk(net, (X,))
    with walk:
        walk.advance()
        assert torch.is_grad_enabled()
        out = walk.compute()
        assert (out.requires_grad, out.is_inference()) == (False, inference)
        product = walk.advance()  # the pass may change in place what was computed here
        assert (product.x.requires_grad, product.x.is_inference()) == (False, inference)
        walk.advance()
        assert (walk.output.requires_grad, walk.output.is_inference()) == (False, inference)


def test_an_inference_tensor_changed_in_place():
    with torch.inference_mode():
        with Walk(forward(lambda self, x: self.one(x.mul_(2))), (X.clone(),)) as walk:
            to_the_end(walk)
        assert walk.output.is_inference()


def test_modes_of_the_whole_process_hold_in_the_walk():
    seen = []

    def look(self: Any, x: torch.Tensor) -> torch.Tensor:
        seen.append((torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()))
        return self.one(x)

    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    try:
        with Walk(forward(look), (X,)) as walk:
            walk.advance()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)
    assert seen == [(torch.float64, True, torch.get_num_threads())]


def test_passes_share_the_process_s_random_numbers():
    net = forward(lambda self, x: (torch.rand(1), self.one(x)))
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    with Walk(net, (X,)) as walk:
        to_the_end(walk)
    assert torch.equal(torch.cat([walk.output[0], torch.rand(1)]), wanted)


# --- leaving


def fail(self: Any, x: torch.Tensor) -> torch.Tensor:
    raise ZeroDivisionError(str(self.one(x).shape))


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_what_the_forward_raises_is_raised_by_advance(error):
    def stop(self: Any, x: torch.Tensor) -> torch.Tensor:
        self.one(x)
        raise error("in between")

    with Walk(forward(stop), (X,)) as walk:
        assert walk.advance().name == "one.weight"
        for _ in range(2):
            with pytest.raises(error, match="in between"):
                walk.advance()
        assert walk.product is walk.output is None


def test_before_the_first_product():
    with Walk(forward(lambda self, x: 1 / 0), (X,)) as walk, pytest.raises(ZeroDivisionError):
        walk.advance()


def test_a_product_that_can_not_be_computed():
    with Walk(nn.Linear(5, 3), (X,)) as walk:
        walk.advance()
        with pytest.raises(RuntimeError, match="shapes"):
            walk.compute()
        with pytest.raises(RuntimeError, match="shapes"):
            walk.advance()


@pytest.mark.parametrize("steps", range(6))
def test_closing_at_any_point(steps):
    walk = Walk(chain(), (X,))
    for _ in range(steps):
        walk.advance()
    for _ in range(2):
        walk.close()
        assert walk.advance() is None
        assert walk.product is None
    assert (walk.output is not None) == (steps > 3)


def test_closing_an_error():
    walk = Walk(forward(fail), (X,))
    walk.advance()
    with pytest.raises(ZeroDivisionError):
        walk.advance()
    walk.close()


def test_an_error_outside_closes():
    walk = Walk(chain(), (X,))
    walk.advance()
    with pytest.raises(ZeroDivisionError), walk:
        _ = 1 / 0
    assert walk.advance() is None


def test_a_forward_cleans_up_when_it_is_left():
    left = []

    def tidy(self: Any, x: torch.Tensor) -> torch.Tensor:
        try:
            return self.one(x)
        finally:
            left.append(threading.current_thread())

    with Walk(forward(tidy), (X,)) as walk:
        walk.advance()
        assert left == []
    assert len(left) == 1
    assert not left[0].is_alive()


def test_a_forward_that_catches_everything_is_left_as_well():
    def stubborn(self: Any, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.one, self.two, self.one):
            try:
                layer(x)
            except BaseException:
                continue
        return x

    walk = Walk(forward(stubborn), (X,))
    walk.advance()
    walk.close()
    assert not walk._thread.is_alive()
    assert walk.advance() is None


def test_an_interrupt_while_the_forward_runs():
    interrupted = threading.Event()

    def long(self: Any, x: torch.Tensor) -> torch.Tensor:
        for _ in range(10):  # one that comes just before the main thread waits is seen only when that ends
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            if interrupted.wait(3):
                return self.two(self.one(x))
        raise AssertionError("the main thread was not interrupted")

    assert threading.current_thread() is threading.main_thread()
    walk = Walk(forward(long), (X,))

    def interrupted_advance() -> None:
        try:
            walk.advance()
        finally:
            interrupted.set()

    with pytest.raises(KeyboardInterrupt), walk:
        interrupted_advance()
    assert walk.output is None
