"""Operator calls that are layers: which class of torch.nn, made how, with which weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from peelcli.rebuild.calls import Recipe, bound, ints, operator_name, shape_of

_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Layer:
    """A layer that one call could be.

    Attributes:
        recipe: how to make it.
        inputs: what its forward is given.
        weights: the nodes of its parameters and buffers, by the names that they have in it.
    """

    recipe: Recipe
    inputs: tuple[Any, ...]
    weights: dict[str, Any] = field(default_factory=dict)


def layer_of(node: fx.Node) -> Layer | None:
    """The layer that computes what a call computes; None where torch.nn has none, or a number is not fixed."""
    finder = _FINDERS.get(operator_name(node).rpartition(".")[0]) or _FINDERS.get(operator_name(node))
    if finder is None:
        return None
    arguments = bound(node)
    layer = finder(arguments)
    if layer is None or _holds_nodes((layer.recipe.args, tuple(layer.recipe.kwargs.values()))):
        return None
    weights = {name: weight for name, weight in layer.weights.items() if weight is not None}
    return Layer(layer.recipe, layer.inputs, weights)


def _holds_nodes(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_holds_nodes, value))
    return isinstance(value, fx.Node)


# --- layers with weights


def _conv(a: Arguments) -> Layer | None:
    weight = shape_of(a["weight"])
    if weight is None or len(weight) - 2 not in _CONVS:
        return None
    if a.get("transposed"):
        return _conv_transposed(a)
    spatial, groups = len(weight) - 2, a["groups"]
    stride, dilation = (_each(a[key], spatial) for key in ("stride", "dilation"))
    padding = a["padding"] if isinstance(a["padding"], str) else _each(a["padding"], spatial)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    options |= {} if a["bias"] is not None else {"bias": False}
    recipe = Recipe(_CONVS[spatial], (weight[1] * groups, weight[0], weight[2:]), _given(options, spatial))
    return Layer(recipe, (a["input"],), {"weight": a["weight"], "bias": a["bias"]})


def _conv_transposed(a: Arguments) -> Layer | None:
    weight = shape_of(a["weight"])
    if weight is None or len(weight) - 2 not in _TRANSPOSED:
        return None
    spatial, groups = len(weight) - 2, a["groups"]
    keys = ("stride", "padding", "output_padding", "dilation")
    options: dict[str, Any] = {key: _each(a[key], spatial) for key in keys} | {"groups": groups}
    options |= {} if a["bias"] is not None else {"bias": False}
    recipe = Recipe(_TRANSPOSED[spatial], (weight[0], weight[1] * groups, weight[2:]), _given(options, spatial))
    return Layer(recipe, (a["input"],), {"weight": a["weight"], "bias": a["bias"]})


def _each(value: Any, spatial: int) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * spatial if len(values) == 1 else values


def _given(options: dict[str, Any], spatial: int) -> dict[str, Any]:
    """Without what is the default anyway."""
    plain = {"stride": (1,) * spatial, "dilation": (1,) * spatial, "groups": 1}
    plain |= {"padding": (0,) * spatial, "output_padding": (0,) * spatial}
    return {key: value for key, value in options.items() if key not in plain or value != plain[key]}


def _linear(a: Arguments) -> Layer | None:
    weight = shape_of(a["weight"])
    if weight is None or len(weight) != 2:
        return None
    options = {} if a["bias"] is not None else {"bias": False}
    recipe = Recipe(nn.Linear, (weight[1], weight[0]), options)
    return Layer(recipe, (a["input"],), {"weight": a["weight"], "bias": a["bias"]})


def _embedding(a: Arguments) -> Layer | None:
    weight = shape_of(a["weight"])
    if weight is None or a["scale_grad_by_freq"] or a["sparse"]:
        return None
    options = {} if a["padding_idx"] < 0 else {"padding_idx": a["padding_idx"]}
    return Layer(Recipe(nn.Embedding, weight, options), (a["indices"],), {"weight": a["weight"]})


def _batch_norm(a: Arguments) -> Layer | None:
    shape = shape_of(a["input"])
    known = [shape_of(a[key]) for key in ("running_mean", "weight") if a.get(key) is not None]
    width = known[0][0] if known and known[0] else (shape[1] if shape else None)
    if shape is None or len(shape) not in _BATCH_NORMS or type(width) is not int:
        return None
    tracked = a.get("running_mean") is not None
    if a.get("training", False) == tracked or (a["weight"] is None) != (a["bias"] is None):
        return None
    options: dict[str, Any] = {"eps": a["eps"]} if a["eps"] != 1e-5 else {}
    options |= {"momentum": a["momentum"]} if a["momentum"] != 0.1 else {}
    options |= {"affine": False} if a["weight"] is None else {}
    options |= {} if tracked else {"track_running_stats": False}
    weights = {key: a[key] for key in ("weight", "bias", "running_mean", "running_var")}
    return Layer(Recipe(_BATCH_NORMS[len(shape)], (width,), options), (a["input"],), weights)


def _instance_norm(a: Arguments) -> Layer | None:
    shape = shape_of(a["input"])
    if shape is None or len(shape) not in _INSTANCE_NORMS or type(shape[1]) is not int:
        return None
    tracked = a["running_mean"] is not None
    if a["use_input_stats"] == tracked or (a["weight"] is None) != (a["bias"] is None):
        return None
    options: dict[str, Any] = {"eps": a["eps"]} if a["eps"] != 1e-5 else {}
    options |= {"affine": True} if a["weight"] is not None else {}
    options |= {"track_running_stats": True} if tracked else {}
    weights = {key: a[key] for key in ("weight", "bias", "running_mean", "running_var")}
    return Layer(Recipe(_INSTANCE_NORMS[len(shape)], (shape[1],), options), (a["input"],), weights)


def _layer_norm(a: Arguments) -> Layer | None:
    shape = ints(a["normalized_shape"])
    if shape is None or (a["weight"] is None and a["bias"] is not None):
        return None
    options: dict[str, Any] = {"eps": a["eps"]} if a["eps"] != 1e-5 else {}
    if a["weight"] is None:
        options["elementwise_affine"] = False
    elif a["bias"] is None:
        options["bias"] = False
    weights = {"weight": a["weight"], "bias": a["bias"]}
    return Layer(Recipe(nn.LayerNorm, (shape,), options), (a["input"],), weights)


def _rms_norm(a: Arguments) -> Layer | None:
    shape = ints(a["normalized_shape"])
    if shape is None:
        return None
    options: dict[str, Any] = {} if a["eps"] is None else {"eps": a["eps"]}
    options |= {} if a["weight"] is not None else {"elementwise_affine": False}
    return Layer(Recipe(nn.RMSNorm, (shape,), options), (a["input"],), {"weight": a["weight"]})


def _group_norm(a: Arguments) -> Layer | None:
    shape = shape_of(a["input"])
    if shape is None or type(shape[1]) is not int or (a["weight"] is None) != (a["bias"] is None):
        return None
    options: dict[str, Any] = {"eps": a["eps"]} if a["eps"] != 1e-5 else {}
    options |= {} if a["weight"] is not None else {"affine": False}
    weights = {"weight": a["weight"], "bias": a["bias"]}
    return Layer(Recipe(nn.GroupNorm, (a["num_groups"], shape[1]), options), (a["input"],), weights)


def _prelu(a: Arguments) -> Layer | None:
    weight = shape_of(a["weight"])
    if weight is None or len(weight) != 1:
        return None
    return Layer(Recipe(nn.PReLU, weight), (a["self"],), {"weight": a["weight"]})


# --- layers without weights


def _plain(kind: type[nn.Module], *names: str, **fixed: Any) -> Callable[[Arguments], Layer | None]:
    """A layer whose constructor takes arguments of the operator, in this order."""

    def finder(a: Arguments) -> Layer | None:
        values = (tuple(a[name]) if isinstance(a[name], list) else a[name] for name in names)
        return Layer(Recipe(kind, tuple(values), fixed), (a.get("self", a.get("input")),))

    return finder


def _gelu(a: Arguments) -> Layer:
    options = {} if a["approximate"] == "none" else {"approximate": a["approximate"]}
    return Layer(Recipe(nn.GELU, (), options), (a["self"],))


def _elu(a: Arguments) -> Layer | None:
    return Layer(Recipe(nn.ELU, (a["alpha"],)), (a["self"],)) if a["scale"] == a["input_scale"] == 1 else None


def _hardtanh(a: Arguments) -> Layer:
    bounds = (a["min_val"], a["max_val"])
    recipe = Recipe(nn.ReLU6) if bounds == (0, 6) else Recipe(nn.Hardtanh, bounds)
    return Layer(recipe, (a["self"],))


def _dropout(a: Arguments) -> Layer | None:
    return None if a["train"] else Layer(Recipe(nn.Dropout, (a["p"],)), (a["input"],))


def _max_pool(kind: type[nn.Module]) -> Callable[[Arguments], Layer | None]:
    def finder(a: Arguments) -> Layer | None:
        stride = tuple(a["stride"]) or tuple(a["kernel_size"])
        options = {"padding": tuple(a["padding"]), "dilation": tuple(a["dilation"]), "ceil_mode": a["ceil_mode"]}
        return Layer(Recipe(kind, (tuple(a["kernel_size"]), stride), options), (a["self"],))

    return finder


def _avg_pool(kind: type[nn.Module]) -> Callable[[Arguments], Layer | None]:
    def finder(a: Arguments) -> Layer | None:
        stride = tuple(a["stride"]) or tuple(a["kernel_size"])
        keys = ("ceil_mode", "count_include_pad", *(("divisor_override",) if "divisor_override" in a else ()))
        options = {"padding": tuple(a["padding"])} | {key: a[key] for key in keys}
        return Layer(Recipe(kind, (tuple(a["kernel_size"]), stride), options), (a["self"],))

    return finder


def _upsample(mode: str) -> Callable[[Arguments], Layer | None]:
    def finder(a: Arguments) -> Layer | None:
        scale = a["scale_factors"]
        options: dict[str, Any] = {"scale_factor": tuple(scale)} if scale else {"size": ints(a["output_size"])}
        options["mode"] = mode
        options |= {"align_corners": True} if a.get("align_corners") else {}
        return Layer(Recipe(nn.Upsample, (), options), (a["input"],)) if scale or options["size"] else None

    return finder


_INPLACE = {
    "relu": _plain(nn.ReLU), "silu": _plain(nn.SiLU), "hardswish": _plain(nn.Hardswish), "mish": _plain(nn.Mish),
    "hardsigmoid": _plain(nn.Hardsigmoid), "relu6": _plain(nn.ReLU6), "hardtanh": _hardtanh, "elu": _elu,
    "leaky_relu": _plain(nn.LeakyReLU, "negative_slope"), "selu": _plain(nn.SELU), "celu": _plain(nn.CELU, "alpha"),
}  # fmt: skip


def _changing(finder: Callable[[Arguments], Layer | None]) -> Callable[[Arguments], Layer | None]:
    """The same layer, writing into its input as the operator does."""

    def changing(a: Arguments) -> Layer | None:
        layer = finder(a)
        if layer is None:
            return None
        recipe = Recipe(layer.recipe.kind, layer.recipe.args, {**layer.recipe.kwargs, "inplace": True})
        return Layer(recipe, layer.inputs)

    return changing


_FINDERS: dict[str, Callable[[Arguments], Layer | None]] = {
    **{f"aten.conv{n}d": _conv for n in (1, 2, 3)},
    "aten.convolution": _conv,
    "aten._convolution": _conv,
    **{f"aten.conv_transpose{n}d": _conv_transposed for n in (1, 2, 3)},
    "aten.linear": _linear,
    "aten.embedding": _embedding,
    "aten.batch_norm": _batch_norm,
    "aten.instance_norm": _instance_norm,
    "aten.layer_norm": _layer_norm,
    "aten.rms_norm": _rms_norm,
    "aten.group_norm": _group_norm,
    "aten.prelu": _prelu,
    **{f"aten.{name}": finder for name, finder in _INPLACE.items()},
    **{f"aten.{name}_": _changing(finder) for name, finder in _INPLACE.items()},
    "aten.sigmoid": _plain(nn.Sigmoid),
    "aten.tanh": _plain(nn.Tanh),
    "aten.softplus": _plain(nn.Softplus, "beta", "threshold"),
    "aten.gelu": _gelu,
    "aten.dropout": _dropout,
    "aten.dropout_": lambda a: _changing(_dropout)({**a, "input": a["self"]}),
    "aten.feature_dropout": _dropout,
    "aten.max_pool1d": _max_pool(nn.MaxPool1d),
    "aten.max_pool2d": _max_pool(nn.MaxPool2d),
    "aten.max_pool3d": _max_pool(nn.MaxPool3d),
    "aten.avg_pool1d": _avg_pool(nn.AvgPool1d),
    "aten.avg_pool2d": _avg_pool(nn.AvgPool2d),
    "aten.avg_pool3d": _avg_pool(nn.AvgPool3d),
    "aten.adaptive_avg_pool1d": _plain(nn.AdaptiveAvgPool1d, "output_size"),
    "aten.adaptive_avg_pool2d": _plain(nn.AdaptiveAvgPool2d, "output_size"),
    "aten.adaptive_avg_pool3d": _plain(nn.AdaptiveAvgPool3d, "output_size"),
    "aten.pixel_shuffle": _plain(nn.PixelShuffle, "upscale_factor"),
    "aten.upsample_nearest2d.vec": _upsample("nearest"),
    "aten.upsample_bilinear2d.vec": _upsample("bilinear"),
    "aten.upsample_bicubic2d.vec": _upsample("bicubic"),
}
