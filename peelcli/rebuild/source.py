"""A rebuilt program as one Python file: its layers, its forward, a function that loads it. It needs torch alone."""

from __future__ import annotations

import inspect
import itertools
import keyword
import math
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812

from peelcli.rebuild import ops
from peelcli.rebuild.build import Rebuilt
from peelcli.rebuild.plain import FUNCTIONS

_INFIX = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/", operator.floordiv: "//",
    operator.matmul: "@", operator.mod: "%", operator.pow: "**", operator.eq: "==", operator.ne: "!=",
    operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=",
}  # fmt: skip
_RESERVED = {"self", "torch", "nn", "F", "math", "operator", "Path", "load", "load_file", "Group"}
_MOST = 118  # characters of a line; a longer call gets a line for each argument

GROUP = '''class Group(nn.Module):
    """Layers under one name; children with numbers for names are reached by index."""

    def __getitem__(self, name):
        return getattr(self, str(name))

    def __setitem__(self, name, value):
        setattr(self, str(name), value)
'''

LOAD = '''def load(weights=Path(__file__).with_suffix(".safetensors")):
    """The model with its weights, in eval mode, on the CPU."""
    with torch.device("meta"):
        model = {name}()
    tensors = load_file(weights)
{tied}    model.load_state_dict(tensors, assign=True)
{ties}    return model.eval()
'''


def text(rebuilt: Rebuilt, first: str, about: str) -> str:
    """The file's content.

    Args:
        rebuilt: the model.
        first: the first line, a comment.
        about: what the file is, for its docstring; one line or more.

    Returns:
        Python source with a class and `load(weights)`, which takes what `weights` gives.
    """
    name = _class_name(rebuilt.module)
    used = {recipe.kind for recipe in rebuilt.recipes.values()}
    helpers = [inspect.getsource(kind) for kind in ops.ALL if kind in used]
    body = [*_layers(rebuilt), "", *_forward(rebuilt.module)]
    again = tied_names(rebuilt.module).items()
    tied = "".join(f"    tensors[{other!r}] = tensors[{kept!r}]\n" for other, kept in again)
    ties = "".join(f"    {_path(other, 'model')} = {_path(kept, 'model')}\n" for other, kept in again)
    imports = ["from __future__ import annotations", ""]
    imports += ["import math"] if any("math." in line for line in body) else []
    imports += ["import operator"] if any("operator." in line for line in body) else []
    imports += ["from pathlib import Path", "", "import torch", "from safetensors.torch import load_file"]
    imports += ["from torch import nn"]
    imports += ["from torch.nn import functional as F"] if any("F." in line for line in body) else []
    safe = about.replace("\\", "/").replace('"', "'")
    header = "\n".join([first, f'"""{safe}"""', "", *imports])
    model = "\n".join([f"class {name}(Group):", f'    """{name} as it was pruned."""', "", *body])
    loading = LOAD.format(name=name, tied=tied, ties=ties)
    parts = [header, GROUP.strip(), *(helper.strip() for helper in helpers), model, loading]
    return "\n\n\n".join(part.strip("\n") for part in parts) + "\n"


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """What the file's `load` reads: every tensor of the state dict, tied ones once."""
    tied = tied_names(module)
    return {name: value for name, value in module.state_dict().items() if name not in tied}


def tied_names(module: nn.Module) -> dict[str, str]:
    """For the second and further names of a parameter or buffer its first one."""
    first: dict[int, str] = {}
    tied = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) in first:
            tied[name] = first[id(value)]
        first.setdefault(id(value), name)
    return tied


def _class_name(module: fx.GraphModule) -> str:
    name = type(module).__name__
    helpers = {kind.__name__ for kind in ops.ALL}
    return f"{name}_" if name in _RESERVED | helpers or keyword.iskeyword(name) or not name.isidentifier() else name


# --- __init__ ---------------------------------------------------------------------------------------------------------


def _layers(rebuilt: Rebuilt) -> Iterator[str]:
    yield "    def __init__(self):"
    yield "        super().__init__()"
    yield from _children(rebuilt, rebuilt.module, "")
    for other, kept in tied_names(rebuilt.module).items():
        yield f"        {_path(other)} = {_path(kept)}"


def _children(rebuilt: Rebuilt, module: nn.Module, path: str) -> Iterator[str]:
    """Tensors of a module, then its children, each as one statement."""
    prefix = f"{path}." if path else ""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            kind = "" if parameter.dtype == torch.float32 else f", dtype={parameter.dtype}"
            frozen = "" if parameter.is_floating_point() else ", requires_grad=False"
            value = f"nn.Parameter(torch.empty({tuple(parameter.shape)}{kind}){frozen})"
            yield f"        {_path(prefix + name)} = {value}"
    for name, buffer in module._buffers.items():
        if buffer is not None:
            value = f"torch.empty({tuple(buffer.shape)}, dtype={buffer.dtype})"
            yield f"        {_path(path)}.register_buffer({name!r}, {value})"
    for name, child in module.named_children():
        where = prefix + name
        if where in rebuilt.recipes:
            yield f"        {_path(where)} = {rebuilt.recipes[where].code()}"
        else:
            yield f"        {_path(where)} = Group()"
            yield from _children(rebuilt, child, where)


def _path(path: str, root: str = "self") -> str:
    """An expression for what stands at a path."""
    steps = "".join(
        f".{part}"
        if part.isidentifier() and not keyword.iskeyword(part)
        else f"[{part}]"
        if part.isdigit() and str(int(part)) == part
        else f"[{part!r}]"
        for part in path.split(".")
        if part
    )
    return f"{root}{steps}"


# --- forward ----------------------------------------------------------------------------------------------------------


def _forward(module: fx.GraphModule) -> Iterator[str]:
    """One statement for each call. A name is used again once its value has had its last reader, so memory is freed."""
    last: dict[Any, fx.Node] = {source: node for node in module.graph.nodes for source in node.all_input_nodes}
    names: dict[Any, str] = {}
    alive: dict[str, fx.Node] = {}  # what each name stands for, as long as somebody will read it
    for node in module.graph.nodes:
        if node.op == "placeholder":
            names[node] = _free(_identifier(str(node.target)), alive)
            alive[names[node]] = node
    yield f"    def forward({', '.join(['self', *alive])}):"
    for node in module.graph.nodes:
        if node.op == "get_attr":
            names[node] = _path(str(node.target))
        elif node.op == "output":
            yield f"        return {_value(node.args[0], names)}"
        elif node.op != "placeholder":
            call, given = _call(node, names)
            done = [names[s] for s in node.all_input_nodes if last[s] is node and alive.get(names[s]) is s]
            for name in done:
                del alive[name]
            names[node] = done[0] if done else next(name for name in _short() if name not in alive)
            if node in last:
                alive[names[node]] = node
            yield from _broken(f"        {names[node]} = ", call, given)


def _short() -> Iterator[str]:
    """Names for values: letters, then t1, t2, ..."""
    yield from "xyzuvwabcdefghijkmnpqrs"
    yield from (f"t{number}" for number in itertools.count(1))


def _identifier(name: str) -> str:
    return name if name.isidentifier() else "".join(c if c.isalnum() else "_" for c in f"v_{name}")


def _free(name: str, taken: Collection[str]) -> str:
    while name in _RESERVED or keyword.iskeyword(name) or name in taken:
        name += "_"
    return name


def _broken(start: str, call: str, arguments: Sequence[str] | None) -> Iterator[str]:
    """A statement, its arguments on lines of their own where one line would be too long; None: it has none."""
    if arguments is None:
        yield start + call
        return
    line = f"{start}{call}({', '.join(arguments)})"
    if len(line) <= _MOST:
        yield line
        return
    yield f"{start}{call}("
    yield from (f"            {argument}," for argument in arguments)
    yield "        )"


def _call(node: fx.Node, names: Mapping[fx.Node, str]) -> tuple[str, list[str] | None]:
    """What is called, and with what; or an expression, and None."""
    args = [_value(argument, names) for argument in node.args]
    named = [f"{key}={_value(value, names)}" for key, value in node.kwargs.items()]
    if node.op == "call_module":
        return _path(str(node.target)), [*args, *named]
    if node.op == "call_method":
        return f"{args[0]}.{node.target}", [*args[1:], *named]
    if node.target is operator.getitem:
        return f"{args[0]}[{args[1]}]", None
    if node.target in _INFIX and len(args) == 2:
        return f"{args[0]} {_INFIX[node.target]} {args[1]}", None
    if node.target is operator.neg:
        return f"-{args[0]}", None
    return _function(node.target), [*args, *named]


def _function(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return f"torch.ops.{target}"
    if target in FUNCTIONS.values():
        name = str(target.__name__)
        return f"F.{name}" if getattr(F, name, None) is target else f"torch.{name}"
    home = getattr(target, "__module__", "torch")
    return f"{'operator' if home == '_operator' else home}.{target.__name__}"


def _value(value: Any, names: Mapping[fx.Node, str]) -> str:
    if isinstance(value, fx.Node):
        return names[value]
    if isinstance(value, tuple):
        inner = ", ".join(_value(entry, names) for entry in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(_value(entry, names) for entry in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_value(entry, names)}" for key, entry in value.items()) + "}"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, torch.device):
        return f"torch.{value!r}"
    return repr(value)
