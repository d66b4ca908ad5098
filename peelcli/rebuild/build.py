"""An exported program as a module of real layers, proven to compute the same."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from peelcli.errors import SourceError
from peelcli.rebuild import batch
from peelcli.rebuild.calls import Recipe, operator_name
from peelcli.rebuild.cleaning import clean
from peelcli.rebuild.compare import difference, run, tolerance
from peelcli.rebuild.layers import layer_of
from peelcli.rebuild.plain import plainly
from peelcli.rebuild.shapes import settle_sizes, sized_of
from peelcli.rebuild.tree import Tree


@dataclass(frozen=True)
class Rebuilt:
    """A program as layers.

    Attributes:
        module: the layers under their original names, in eval mode, its weights shared with the program.
        recipes: how each of its modules is made, by path.
        inputs: one tensor for each argument of its forward.
        notes: what did not come out as one would expect, one sentence each.
    """

    module: fx.GraphModule
    recipes: dict[str, Recipe]
    inputs: tuple[Any, ...]
    notes: tuple[str, ...] = ()


def rebuild(
    program: ExportedProgram,
    example: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
    parameters: Collection[str] = (),
) -> Rebuilt:
    """Make layers of an exported program.

    Args:
        program: exported in eval mode; not changed.
        example: positional and keyword arguments; by default those that the program brings, or made from its shapes.
        parameters: paths of parameters beyond those that the program calls so; TorchScript's lose that on the way.

    Raises:
        SourceError: it was exported in train mode, or what was built does not compute what the program does.
    """
    args, kwargs = example or program.example_inputs or _made_up(program)
    original = program.module(check_guards=False)
    whole = program.module(check_guards=False)
    assert isinstance(whole, fx.GraphModule)
    places = [node for node in whole.graph.nodes if node.op == "placeholder"]
    leaves = pytree.tree_leaves((args, kwargs))
    clean(whole)
    _refuse_training(whole)
    kept = [node in set(whole.graph.nodes) for node in places]
    if len(leaves) != len(places):
        raise SourceError("the example inputs of the program do not fit it", hint="export it again")
    inputs = tuple(leaf for leaf, stays in zip(leaves, kept, strict=True) if stays)
    expected = run(original, args, kwargs)
    strategies = batch.plans(whole, inputs)
    for graph, follows in strategies:
        rebuilt = _assemble(whole, graph, program, parameters)
        worst = difference(run(rebuilt.module, inputs), expected)
        if not worst <= tolerance(expected):
            continue
        if follows and not batch.rows_agree(rebuilt.module, inputs, tolerance(expected)):
            continue
        notes = (*rebuilt.notes, *_notes(whole, inputs, follows))
        return Rebuilt(rebuilt.module, rebuilt.recipes, inputs, notes)
    raise SourceError(
        f"the program can't be turned into layers: rebuilt, it computes something else (difference {worst:.1e})",
        hint="give the model that it was exported from, e.g. saved with torch.save(model, 'model.pt')",
    )


def _notes(whole: fx.GraphModule, inputs: tuple[Any, ...], follows: bool) -> Iterator[str]:
    if not follows and not batch.is_dynamic(whole):
        size = batch.size_of(inputs)
        yield f"the batch is fixed to {size} as it was exported" if size else "the shapes are fixed as exported"


def _refuse_training(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        name = operator_name(node)
        training = {"aten.dropout.default": 2, "aten.dropout_.default": 2}.get(name)
        normalises = name == "aten.batch_norm.default" and node.args[3] is not None and node.args[5] is True
        if normalises or (training and node.args[training] is True and node.args[1]):
            raise SourceError(
                "the program was exported in train mode", hint="export it again after model.eval(), then give that file"
            )


def _assemble(whole: fx.GraphModule, graph: fx.Graph, program: ExportedProgram, parameters: Collection[str]) -> Rebuilt:
    """Replace calls by layers where there is one, then by small modules with sizes, then by plain PyTorch."""
    for node in graph.nodes:
        settle_sizes(node)
    graph.eliminate_dead_code()
    tensors = _tensors(whole)
    held = {**program.state_dict, **tensors}
    held = {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}
    tree = Tree(tensors, held, {*program.graph_signature.parameters, *parameters})
    waiting = [node for node in graph.nodes if operator_name(node)]
    rest = []
    for node in waiting:  # a call is read when its turn comes: those before it have been replaced
        layer = layer_of(node)
        path = tree.place_weighted(node, layer) if layer is not None and layer.weights else None
        if layer is not None and path is not None:
            _replace(graph, node, path, layer.inputs)
        else:
            rest.append(node)
    _keep_bare(graph, tree)
    for node in rest:
        layer = layer_of(node)
        layer = layer if layer is not None and not layer.weights else sized_of(node)
        if layer is not None:
            _replace(graph, node, tree.place(node, layer), layer.inputs)
        else:
            _rewrite(graph, node)
    module = fx.GraphModule(tree.root, graph)
    module.graph.eliminate_dead_code(is_impure_node=lambda node: _has_effect(module, node))
    module = fx.GraphModule(module, module.graph, class_name=_class_name(whole))  # without what nothing calls
    for node in module.graph.nodes:
        node.meta.clear()  # the export's own notes: copies of the module need not carry them
    used = dict(module.eval().named_modules())
    return Rebuilt(module, {path: recipe for path, recipe in tree.recipes.items() if path in used}, ())


def _has_effect(module: nn.Module, node: fx.Node) -> bool:
    """Whether a call matters without a reader: it writes into its input, or it is the graph's edge."""
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    return bool(node.is_impure())


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor that the graph reads, by every path; constants are plain attributes at first."""
    named = itertools.chain(
        module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    )
    found: dict[str, torch.Tensor] = dict(named)
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                found[f"{path}.{name}" if path else name] = value
    return found


def _keep_bare(graph: fx.Graph, tree: Tree) -> None:
    """Tensors that no layer took stay where they were."""
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        if not node.users:
            graph.erase_node(node)
        elif str(node.target).rpartition(".")[0] not in tree.recipes:
            tree.keep(str(node.target))


def _replace(graph: fx.Graph, node: fx.Node, path: str, inputs: tuple[Any, ...]) -> None:
    with graph.inserting_before(node):
        call = graph.create_node("call_module", path, inputs)
    _swap(graph, node, call)


def _rewrite(graph: fx.Graph, node: fx.Node) -> None:
    plain = plainly(node)
    if plain is not None:
        with graph.inserting_before(node):
            call = graph.create_node(*plain)
        _swap(graph, node, call)


def _swap(graph: fx.Graph, node: fx.Node, call: fx.Node) -> None:
    call.meta = {key: node.meta[key] for key in ("val", "nn_module_stack") if key in node.meta}
    node.replace_all_uses_with(call)
    graph.erase_node(node)


def _class_name(module: fx.GraphModule) -> str:
    """The original's class, where the export wrote it down."""
    for node in module.graph.nodes:
        for path, kind in (entry[:2] for entry in (node.meta.get("nn_module_stack") or {}).values()):
            if path in ("", "L['self']"):
                name = (kind if isinstance(kind, str) else getattr(kind, "__name__", "")).rpartition(".")[2]
                if name.isidentifier():
                    return name
    return "Rebuilt"


def _made_up(program: ExportedProgram) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Random inputs in the shapes that the program was exported with; 2 where a size is free."""
    generator = torch.Generator().manual_seed(0)
    values = []
    users = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in users:
            continue
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            values.append(value)
            continue
        shape = [size if type(size) is int else 2 for size in value.shape]
        drawn = torch.randn(shape, generator=generator)
        values.append(drawn.to(value.dtype) if value.is_floating_point() else torch.zeros(shape, dtype=value.dtype))
    args, kwargs = pytree.tree_unflatten(values, program.call_spec.in_spec)
    return args, kwargs
