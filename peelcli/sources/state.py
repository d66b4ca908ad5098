"""State dicts: found inside the usual wrappers, and fitted to a module that a factory or a name has built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from peelcli.errors import SourceError
from peelcli.sources import exported, pickled, script, usercode
from peelcli.sources.sniff import Kind, cut_short, sniff

# Keys under which training scripts keep a model or its weights, the first one found wins; averaged weights come last.
WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params", "generator"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_model", "params_ema"),
)
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_SHOWN = 20  # mismatched keys that a message lists
_DEEPEST = 3  # wrappers inside wrappers


def from_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        SourceError: it is damaged, or the safetensors package is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise SourceError(f"{path} needs the safetensors package", hint="pip install safetensors") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError):
        raise cut_short(path) from None


def read(path: Path, code: Path | None = None, trust: bool = False) -> Any:
    """Open a model file of any kind that holds weights or a module.

    Returns:
        What is in it: see `unwrap`.

    Raises:
        SourceError: it is of a kind that can't be used, or can't be opened.
    """
    kind = sniff(path)
    if kind is Kind.SAFETENSORS:
        return from_safetensors(path)
    if kind in (Kind.TORCH_ZIP, Kind.TORCH_LEGACY):
        return pickled.load(path, kind, code, trust)
    if kind is Kind.EXPORTED:
        return exported.load(path, code, trust).module
    if kind is Kind.TORCHSCRIPT:
        return script.weights(path, code)
    raise SourceError(
        f"{path} is an {kind.value}: a model of its own, not weights for another",
        hint=f"give it as MODEL, without --factory: peel prune {path} --flops 50%",
    )


def unwrap(found: Any, path: Path) -> tuple[nn.Module | dict[str, Tensor], tuple[str, ...]]:
    """Find the module or the state dict in what a file holds.

    Returns:
        Either one, and a note where it stood among other things.

    Raises:
        SourceError: neither is there.
    """
    inside: list[str] = []
    while isinstance(found, Mapping) and len(inside) < _DEEPEST and (key := _wrapper(found)):
        inside.append(key)
        found = found[key]
    notes = (f"weights taken from {'.'.join(map(repr, inside))} in {path.name}",) if inside else ()
    if isinstance(found, nn.Module):
        return found, notes
    if isinstance(found, Mapping):
        state = {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if state:
            return state, notes
    raise SourceError(
        f"{path} holds {_kind_of(found)}, neither a module nor a state dict",
        hint="save one with torch.save(model, 'model.pt') or torch.save(model.state_dict(), 'weights.pt')",
    )


def _wrapper(found: Mapping[Any, Any]) -> str | None:
    def holds(value: Any) -> bool:
        nested = isinstance(value, Mapping) and bool(value)
        return isinstance(value, nn.Module) or (
            nested and (any(isinstance(inner, Tensor) for inner in value.values()) or _wrapper(value) is not None)
        )

    return next((key for key in WRAPPERS if key in found and holds(found[key])), None)


def _kind_of(found: Any) -> str:
    if isinstance(found, Mapping):
        keys = ", ".join(str(key) for key in list(found)[:6])
        return f"a dict with {'the keys ' + keys if keys else 'nothing in it'}"
    if isinstance(found, Tensor):
        return "a single tensor"
    return f"an object of type {type(found).__name__}"


def fit(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> tuple[str, ...]:
    """Load a state dict into a module whose names and shapes it must match.

    Args:
        module: changed in place.
        state: names to tensors; wrappers' prefixes such as "module." are taken off where that makes the names match.
        path: for messages.

    Returns:
        Notes on what was adapted.

    Raises:
        SourceError: keys or shapes differ; all of them are listed, at most 20.
    """
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    state, prefix = _without_prefix(state, own)
    wrong = _mismatches(own, state)
    if wrong:
        rest = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise SourceError(
            f"{path} does not match the model in {len(wrong)} keys: {'; '.join(wrong[:_SHOWN])}{rest}",
            hint="build the model with the arguments that it was trained with",
        )
    try:
        module.load_state_dict({name: state[name] for name in own if name in state}, strict=False)
    except Exception as error:  # hooks and overridden loaders raise anything
        raise SourceError(
            f"{path} can't be loaded into the model: {usercode.told(error)}", hint="check the model's own loading code"
        ) from error
    notes = [f"prefix {prefix!r} taken off the names in {path.name}"] if prefix else []
    return (*notes, *_changed_types(own, state))


def _without_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """The spelling of the state's names that shares most with the module's; as they are, where there is a tie."""
    spellings, prefix = [(state, "")], ""
    while shared := next((p for p in _PREFIXES if all(name.startswith(p) for name in spellings[-1][0])), ""):
        prefix += shared
        spellings.append(({name.removeprefix(shared): value for name, value in spellings[-1][0].items()}, prefix))
    return max(spellings, key=lambda spelling: len(own.keys() & spelling[0].keys()))


def _mismatches(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """What does not match, one phrase a key: missing, unexpected, then shapes."""
    given = {own[name].data_ptr() for name in own.keys() & state.keys() if own[name].numel()}
    missing = [
        f"missing {name}"
        for name, value in own.items()
        # Checkpoints from before torch 0.4.1 have no batch counts; safetensors keeps one name of tied tensors.
        if name not in state and not name.endswith("num_batches_tracked") and value.data_ptr() not in given
    ]
    unexpected = [f"unexpected {name}" for name in state if name not in own]
    shapes = [
        f"{name} is {_shape(state[name])} in the file, {_shape(value)} in the model"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    return missing + unexpected + shapes


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _changed_types(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """load_state_dict casts without a word; say so."""

    def types(tensors: Iterable[Tensor]) -> str:
        names = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors if tensor.is_floating_point()}
        return ", ".join(sorted(names))

    there, here = types(state.values()), types(own[name] for name in own if name in state)
    return [f"weights are {there} in the file and became {here} in the model"] if there != here else []


def load_into(module: nn.Module, path: Path, code: Path | None = None, trust: bool = False) -> tuple[str, ...]:
    """Load the weights in a file into a module: see `read`, `unwrap` and `fit`."""
    found, notes = unwrap(read(path, code, trust), path)
    state = found.state_dict() if isinstance(found, nn.Module) else found
    with torch.no_grad():
        return notes + fit(module, state, path)
