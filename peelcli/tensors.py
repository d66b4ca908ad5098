"""Small helpers on modules and tensors that several rooms need; none of them changes the numbers that it is given."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

_HALF = (torch.float16, torch.bfloat16)


def meta_copy(module: nn.Module) -> nn.Module:
    """Copy a module with every tensor replaced by an empty one on the meta device.

    Args:
        module: left as it is; no memory is used for its weights.

    Returns:
        The copy, with the same mode, flags and tied parameters. Tensors that modules keep in plain attributes, lists
        or dicts are replaced as well. Modules that refuse to be copied raise what they raise.
    """
    memo: dict[int, Any] = {}
    for tensor in _all_tensors(module):
        if id(tensor) not in memo:
            memo[id(tensor)] = _empty(tensor)
    return copy.deepcopy(module, memo)


def tracing_copy(module: nn.Module, weightless: bool = True) -> nn.Module:
    """A copy in eval mode with gradients on: a frozen layer, or one in train mode, is traced like any other.

    Args:
        module: left as it is.
        weightless: whether the copy is on device "meta", where nothing is computed.
    """
    return _differentiable(forgetful(meta_copy(module)) if weightless else brief_copy(module))


def _differentiable(module: nn.Module) -> nn.Module:
    """The module itself, in eval mode, with gradients on."""
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    return module.eval()


def wide_copy(module: nn.Module) -> nn.Module:
    """A copy in eval mode with gradients on, half precision as float32; also inside `torch.inference_mode`."""
    with torch.inference_mode(False):
        copy = _differentiable(full_copy(module))
        tensors: tuple[torch.Tensor, ...] = (*copy.parameters(), *copy.buffers())
        if any(t.dtype in _HALF for t in tensors):
            nn.Module._apply(copy, lambda t: t.float() if t.dtype in _HALF else t)
    return copy


@contextmanager
def differentiated(module: nn.Module) -> Iterator[None]:
    """Gradients on, whatever is around; without cudnn where it has no backward pass: recurrent layers in eval mode."""
    recurrent = any(isinstance(child, nn.RNNBase) for child in module.modules())
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext(),
    ):
        yield


def full_copy(module: nn.Module, replaced: Mapping[int, torch.Tensor] | None = None) -> nn.Module:
    """A deep copy, of modules too that keep computed tensors in plain attributes, as the old weight_norm does.

    What modules keep from calls in eval mode and drop in train mode (LeViT's attention biases) is dropped.

    Args:
        module: left as it is.
        replaced: what stands in the copy for a tensor, by the tensor's id; tied tensors stay tied.
    """
    memo: dict[int, Any] = {id(t): t.detach().clone() for t in _all_tensors(module) if not t.is_leaf}
    return forgetful(copy.deepcopy(module, memo | dict(replaced or {})))


def brief_copy(module: nn.Module) -> nn.Module:
    """A full copy for our own use: parameters take memory once one side writes to them (torch's copy on write).

    It must not be handed out, nor outlive its original: torch 2.13's ONNX export crashes on tensors that share memory
    in this way.
    """
    return full_copy(module, {id(p): _until_written(p) for p in module.parameters() if p.is_leaf and _stands_alone(p)})


def byte_size(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, tied ones once."""
    return sum(tensor.numel() * tensor.element_size() for _, tensor in named_tensors(module))


def let_go(double: nn.Module) -> None:
    """Give up what a copy holds in memory; shapes and types stay.

    Hooked copies hold themselves in cycles until Python looks for such. While a brief one lives, the next write to its
    original, or a mere look at its memory from NumPy, makes the shared tensors whole a second time.
    """
    for _, tensor in named_tensors(double):
        if tensor.is_leaf:
            tensor.data = tensor.data.new_zeros(()).expand(tensor.shape)


def into_own_memory(module: nn.Module) -> None:
    """Move parameters that were read from a file into memory of torch's own, one after the other.

    Only of such memory can brief copies be made. What shares its memory with another tensor stays where it is.
    """
    uses = Counter(tensor.untyped_storage().data_ptr() for _, tensor in named_tensors(module) if _is_plain(tensor))
    for parameter in module.parameters():
        if _stands_alone(parameter) and not _is_own(parameter) and uses[parameter.untyped_storage().data_ptr()] == 1:
            parameter.data = parameter.data.clone()


def _until_written(parameter: nn.Parameter) -> nn.Parameter:
    """A copy that shares memory until one side writes; a plain one where the memory is not torch's own."""
    copied = torch._lazy_clone(parameter.detach()) if _is_own(parameter) else parameter.detach().clone()
    return nn.Parameter(copied, requires_grad=parameter.requires_grad)


def _is_own(tensor: torch.Tensor) -> bool:
    """Whether torch's allocator gave the memory: the first write to a lazy copy of other memory ends torch 2.13."""
    return tensor.untyped_storage().resizable()


def _stands_alone(parameter: nn.Parameter) -> bool:
    """Whether a parameter is of the plain kind and has its memory to itself, so that a lazy copy is a true one."""
    own = parameter.numel() * parameter.element_size()
    return type(parameter) is nn.Parameter and _is_plain(parameter) and parameter.untyped_storage().nbytes() == own


def _is_plain(tensor: torch.Tensor) -> bool:
    known = type(tensor) in (torch.Tensor, nn.Parameter)
    return known and not tensor.is_meta and tensor.layout is torch.strided


def forgetful(module: nn.Module) -> nn.Module:
    """The module itself, once in train mode and back: what it keeps of its parameters in eval mode would go stale."""
    before = [(child, child.training) for child in module.modules()]
    nn.Module.train(module)
    for child, training in before:
        child.training = training
    return module


@contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """In eval mode inside; afterwards every child is in the mode that it was in."""
    before = [(child, child.training) for child in module.modules()]
    nn.Module.eval(module)
    try:
        yield
    finally:
        for child, training in before:
            child.training = training
        forgetful(module)


def float64_copy(module: nn.Module) -> nn.Module:
    """A full copy in float64 and eval mode, also of a module that uses the name `double` for something else."""
    return nn.Module.eval(nn.Module.double(brief_copy(module)))


@contextmanager
def default_float64() -> Iterator[None]:
    """Tensors that a forward itself makes are float64 as well."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    plain = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(plain, requires_grad=tensor.requires_grad)
    return plain


def _all_tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    for child in module.modules():
        for value in vars(child).values():
            yield from _inside(value)


def _inside(value: Any) -> Iterator[torch.Tensor]:
    """Tensors in a value: itself, or one level of list, tuple, set or dict (parameters and buffers are in dicts)."""
    values: Iterable[Any] = (value,)
    if isinstance(value, dict):
        values = value.values()
    elif isinstance(value, (list, tuple, set)):
        values = value
    yield from (inner for inner in values if isinstance(inner, torch.Tensor))


def to_meta(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same nest of inputs with every tensor on device "meta"."""
    return tuple(pytree.tree_map_only(torch.Tensor, lambda t: torch.empty_like(t, device="meta"), inputs))


def beside(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same nest of inputs with every tensor on the device of the module's weights."""
    device = next((tensor.device for _, tensor in named_tensors(module)), torch.device("cpu"))
    return tuple(pytree.tree_map_only(torch.Tensor, lambda t: t.to(device), inputs))


def own(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copies of the inputs on the module's device, so that a forward may change them in place."""
    return tuple(pytree.tree_map_only(torch.Tensor, torch.clone, beside(module, inputs)))


def wide_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A copy of the inputs on the device of the module's weights, half precision as float32, for a `wide_copy`."""
    device = next((tensor.device for _, tensor in named_tensors(module)), torch.device("cpu"))

    def moved(leaf: torch.Tensor) -> torch.Tensor:
        return leaf.to(device, torch.float32 if leaf.dtype in _HALF else leaf.dtype, copy=True)

    with torch.inference_mode(False):
        return tuple(pytree.tree_map_only(torch.Tensor, moved, inputs))


def one_sample(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs cut to their first sample, where all tensors share a leading batch dimension, or are in such lists."""
    if any(is_list_of_samples(value) for value in inputs):
        cut = tuple(value[:1] if is_list_of_samples(value) else value for value in inputs)
        return inputs if len(tensors_in(cut)) == len(tensors_in(inputs)) else cut
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    sizes = {t.shape[0] if t.dim() else 0 for t in tensors}
    if len(sizes) != 1 or sizes <= {0, 1}:
        return inputs
    return tuple(pytree.tree_map_only(torch.Tensor, lambda t: t[:1], inputs))


def is_list_of_samples(value: Any) -> bool:
    """Whether a value is a list of images, each (channels, height, width), as detectors take them: without a batch."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, torch.Tensor) and item.dim() == 3 and item.is_floating_point() for item in value)
    )


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors in a nest of tuples, lists, dicts, dataclasses and registered containers, in order."""
    found: list[torch.Tensor] = []
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, torch.Tensor):
            found.append(leaf)
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            found.extend(t for entry in dataclasses.fields(leaf) for t in tensors_in(getattr(leaf, entry.name)))
    return found


def named_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and buffer with its path, each tensor once."""
    return itertools.chain(module.named_parameters(), module.named_buffers())


def first_names(module: nn.Module) -> dict[str, str]:
    """For every path of a parameter or buffer the one that named_tensors gives it; tied tensors have several."""
    first = {id(tensor): name for name, tensor in named_tensors(module)}
    every = itertools.chain(
        module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    )
    return {name: first[id(tensor)] for name, tensor in every}


def parent_of(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that holds a tensor or child, and the name that it has there."""
    owner, _, name = path.rpartition(".")
    return module.get_submodule(owner), name
