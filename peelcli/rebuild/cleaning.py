"""What an exported graph has besides the model: checks, aliases, wrapped parts, nests of inputs and outputs."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import fx
from torch.utils import _pytree as pytree

from peelcli.errors import SourceError
from peelcli.rebuild.calls import ENDLESS, operator_name

_NOISE = (
    "aten._assert", "aten.sym_constrain", "aten._assert_async", "aten._functional_assert", "aten._assert_scalar",
    "aten._assert_tensor_metadata", "aten.sym_constrain_range",
)  # fmt: skip
_ALIASES = ("aten.detach.default", "aten.alias.default", "aten.lift_fresh.default", "aten.detach_.default")
_WRAPS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


def clean(module: fx.GraphModule) -> None:
    """Take out, in place, what computes nothing; bring in what is wrapped; make inputs and outputs plain arguments."""
    _unwrap(module)
    for node in list(module.graph.nodes):
        name = operator_name(node)
        if node.op == "call_module" and node.target == "_guards_fn":
            module.graph.erase_node(node)
        elif name.startswith(_NOISE):
            _forget(node)
        elif name in _ALIASES or _is_whole(node, name):
            node.replace_all_uses_with(cast(fx.Node, node.args[0]))
            module.graph.erase_node(node)
    _flatten_interface(module)
    module.graph.eliminate_dead_code()
    module.graph.lint()


def _forget(node: fx.Node) -> None:
    if not node.users:
        node.graph.erase_node(node)


def _is_whole(node: fx.Node, name: str) -> bool:
    """x[0:] is x."""
    if name != "aten.slice.Tensor":
        return False
    _, _, start, stop, step = (*node.args, *(0, None, ENDLESS, 1)[len(node.args) - 1 :])[:5]
    return bool(start in (0, None) and stop in (ENDLESS, None) and step == 1 and not node.kwargs)


def _unwrap(module: fx.GraphModule) -> None:
    """Parts run without gradients, or with autocast off, are written as modules of their own: inline them."""
    while wrapped := [node for node in module.graph.nodes if getattr(node.target, "_name", "") in _WRAPS]:
        for node in wrapped:
            at = next(i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and _part(module, a) is not None)
            part = _part(module, node.args[at])
            assert part is not None
            if node.target._name == "wrap_with_autocast" and node.args[2 if len(node.args) > 3 else 1] is True:
                raise SourceError("the program runs under autocast", hint="export it without torch.autocast")
            _inline(module, node, part, node.args[at + 1 :])


def _part(module: fx.GraphModule, node: Any) -> fx.GraphModule | None:
    if isinstance(node, fx.Node) and node.op == "get_attr":
        found = getattr(module, str(node.target), None)
        return found if isinstance(found, fx.GraphModule) else None
    return None


def _inline(module: fx.GraphModule, node: fx.Node, part: fx.GraphModule, inputs: Sequence[Any]) -> None:
    places = [inner for inner in part.graph.nodes if inner.op == "placeholder"]
    known: dict[fx.Node, Any] = dict(zip(places, inputs, strict=True))
    with module.graph.inserting_before(node):
        result = module.graph.graph_copy(part.graph, known)
    for user in list(node.users):
        if user.target is operator.getitem and isinstance(result, (tuple, list)):
            user.replace_all_uses_with(result[cast(int, user.args[1])])
            module.graph.erase_node(user)
    if node.users and isinstance(result, fx.Node):
        node.replace_all_uses_with(result)
    module.graph.erase_node(node)


def _flatten_interface(module: fx.GraphModule) -> None:
    """A plain forward: one argument for each tensor, and the outputs as tuples, lists and dicts of tensors."""
    codegen = module.graph._codegen
    if not isinstance(codegen, fx.graph._PyTreeCodeGen):
        return
    output = next(node for node in module.graph.nodes if node.op == "output")
    values = output.args[0] if isinstance(output.args[0], (tuple, list)) else [output.args[0]]
    spec = codegen.pytree_info.out_spec
    nested = _nested(list(values), spec) if spec is not None else tuple(values)
    output.args = (nested,)
    module.graph.set_codegen(fx.graph.CodeGen())
    for node in [node for node in module.graph.nodes if node.op == "placeholder"]:
        if not node.users and not isinstance(node.meta.get("val"), torch.Tensor):
            module.graph.erase_node(node)  # a constant of the example: it is baked in


def _nested(values: list[Any], spec: pytree.TreeSpec) -> Any:
    """The outputs in their containers; what fx can't write, such as a dataclass, becomes a dict or a tuple."""
    if spec.is_leaf():
        return values.pop(0)
    inner = [_nested(values, child) for child in spec.children()]
    if spec.type is list:
        return inner
    if spec.type is not tuple and isinstance(spec.context, (list, tuple)) and _are_keys(spec.context, inner):
        return dict(zip(spec.context, inner, strict=True))
    if isinstance(spec.context, (list, tuple)) and spec.context and _are_keys(spec.context[0], inner):
        return dict(zip(spec.context[0], inner, strict=True))
    return tuple(inner)


def _are_keys(context: Any, inner: Sequence[Any]) -> bool:
    return (
        isinstance(context, (list, tuple)) and len(context) == len(inner) and all(isinstance(k, str) for k in context)
    )
