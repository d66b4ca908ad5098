"""Where the layers stand: the original names, and free ones beside them for what had none."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import fx, nn

from peelcli.rebuild.calls import Recipe, operator_name
from peelcli.rebuild.layers import Layer

_CALL_NUMBER = re.compile(r"@\d+")
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_COUNTS = "num_batches_tracked"


class Tree:
    """Modules and bare tensors by their paths; every tensor is the program's own, none is copied.

    Attributes:
        root: what has been placed.
        recipes: how each module in it is made, by path.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor], parameters: Collection[str]
    ) -> None:
        """Start empty.

        Args:
            tensors: every parameter and buffer of the program by every path that it has.
            counts: the same, with those that the program holds but never reads.
            parameters: the paths that are parameters where the tensors themselves don't say so.
        """
        self.root = nn.Module()
        self.recipes: dict[str, Recipe] = {}
        self._tensors = tensors
        self._counts = counts
        self._parameters = frozenset(parameters)
        self._made: dict[int, nn.Parameter] = {}
        self._paths: dict[int, list[str]] = {}
        for path, tensor in tensors.items():
            self._paths.setdefault(id(tensor), []).append(path)
        self._taken = {*tensors, *(above for path in tensors for above in _above(path))}

    def place_weighted(self, node: fx.Node, layer: Layer) -> str | None:
        """Put a layer where its weights were; None where they were no layer of this kind, or are one of another."""
        weights: dict[str, str] = {}
        for name, weight in layer.weights.items():
            if not isinstance(weight, fx.Node) or weight.op != "get_attr":
                return None
            weights[name] = str(weight.target)
        here = stack_of(node)[0]
        owners = sorted(self._owners(weights), key=lambda owner: owner != here)
        for owner in owners:
            if owner in self.recipes and self.recipes[owner] == layer.recipe:
                return owner
            if owner not in self.recipes and self._is_alone(owner, weights):
                self._put(owner, layer.recipe, weights)
                return owner
        return None

    def place(self, node: fx.Node, layer: Layer) -> str:
        """Put a module without weights where it stood, or beside what it works on."""
        path, kind = stack_of(node)
        if kind == layer.recipe.kind.__name__ and path:
            if self.recipes.get(path) == layer.recipe:
                return path
            if self._is_free(path):
                return self._put(path, layer.recipe, {})
        stem = operator_name(node).split(".")[1].strip("_")
        while path and any(above in self.recipes for above in (path, *_above(path))):  # a layer takes no children
            path, _, last = path.rpartition(".")
            stem = f"{last}_{stem}"
        stem = f"{path}.{stem}" if path else stem
        if stem[stem.rfind(".") + 1].isdigit():
            stem = f"{stem[: stem.rfind('.') + 1]}op_{stem[stem.rfind('.') + 1 :]}"
        return self._put(next(name for name in _numbered(stem) if self._is_free(name)), layer.recipe, {})

    def keep(self, path: str) -> None:
        """Put a bare tensor where it was."""
        owner, name = self._container(path)
        tensor = self._tensors[path]
        if isinstance(tensor, nn.Parameter) or path in self._parameters:
            owner.register_parameter(name, self._parameter(tensor))
        else:
            owner.register_buffer(name, tensor)

    def _owners(self, weights: Mapping[str, str]) -> set[str]:
        """Paths of modules that hold every one of these tensors, each under the layer's name for it."""
        found: set[str] | None = None
        for name, path in weights.items():
            paths = self._paths[id(self._tensors[path])]
            here = {other.rpartition(".")[0] for other in paths if other.rpartition(".")[2] == name}
            found = here if found is None else found & here
        return (found or set()) - {""}

    def _is_alone(self, owner: str, weights: Mapping[str, str]) -> bool:
        below = {path.removeprefix(f"{owner}.") for path in self._tensors if path.startswith(f"{owner}.")}
        return below <= {*weights, _COUNTS}

    def _is_free(self, path: str) -> bool:
        name = path.rpartition(".")[2]
        return (
            path not in self._taken
            and not hasattr(nn.Module, name)
            and not any(above in self.recipes or above in self._tensors for above in _above(path))
        )

    def _put(self, path: str, recipe: Recipe, weights: Mapping[str, str]) -> str:
        module = recipe.make().eval()
        for name, where in weights.items():
            tensor = self._tensors[where]
            setattr(module, name, self._parameter(tensor) if name in module._parameters else tensor)
        if getattr(module, _COUNTS, None) is not None:
            setattr(module, _COUNTS, self._counts.get(f"{path}.{_COUNTS}", torch.tensor(0)))
        owner, name = self._container(path)
        owner.add_module(name, module)
        self.recipes[path] = recipe
        self._taken.update((path, *_above(path)))
        return path

    def _parameter(self, tensor: torch.Tensor) -> nn.Parameter:
        """A weight that the program holds as a plain tensor, as TorchScript's do; the same one each time."""
        if isinstance(tensor, nn.Parameter):
            return tensor
        if id(tensor) not in self._made:
            self._made[id(tensor)] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
        return self._made[id(tensor)]

    def _container(self, path: str) -> tuple[nn.Module, str]:
        module = self.root
        *above, name = path.split(".")
        for part in above:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return module, name


def stack_of(node: fx.Node) -> tuple[str, str]:
    """Path and class name of the innermost original module that a call stood in; two empty strings if unknown."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", ""
    path, kind = list(stack.values())[-1][:2]
    path = _CALL_NUMBER.sub("", path if isinstance(path, str) else "")
    path = re.sub(r"^L\['self'\]\.?", "", path)
    kind = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    if not _NAME.fullmatch(path):
        return "", kind.rpartition(".")[2] if not path else ""
    return path, kind.rpartition(".")[2]


def _above(path: str) -> Iterator[str]:
    parts = path.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts)))


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    number = 1
    while True:
        yield f"{stem}_{number}"
        number += 1
