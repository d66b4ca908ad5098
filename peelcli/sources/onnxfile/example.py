"""Which inputs a graph is rebuilt and tried with: what the file says, what the user says, and a guess for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from peelcli.errors import InputError
from peelcli.inputtext import InputSpec, Spec
from peelcli.sources.onnxfile.graph import argument
from peelcli.sources.onnxfile.read import Input, OnnxFile

_IMAGES = (224, 32, 64, 256)  # sides of an image that are tried where the file leaves them open
_LENGTHS = (16, 128, 1024)  # of a sequence or a signal


@dataclass(frozen=True, slots=True)
class Shapes:
    """The sizes of all inputs, the batch left open.

    Attributes:
        sizes: by the graph's name of the input; None stands for the batch.
        batch: what the file fixes it to, or None.
        guessed: whether a size is a guess.
        settled: whether nothing but the batch is open.
    """

    sizes: Mapping[str, tuple[int | None, ...]]
    batch: int | None
    guessed: bool
    settled: bool

    def at(self, batch: int) -> dict[str, tuple[int, ...]]:
        """The sizes at a batch."""
        return {name: tuple(batch if s is None else s for s in sizes) for name, sizes in self.sizes.items()}


def shapes(file: OnnxFile, specs: Sequence[Spec]) -> Iterator[Shapes]:
    """Sizes to rebuild a graph with, the likeliest first.

    Args:
        file: what was read.
        specs: what the user gave; their batch is no part of it.

    Raises:
        InputError: they contradict the file.
    """
    said = _given(file, specs)
    symbol = _batch_symbol(file)
    batch = None if symbol is not None else _fixed_batch(file)
    settled = not any(open_sizes(file))
    for image, length in zip(_IMAGES, (*_LENGTHS, _LENGTHS[0]), strict=True):
        guesses: dict[str, int] = {}
        sizes, is_guess = {}, False
        for value in file.inputs:
            made, guessed = _sizes(value, said.get(value.name), symbol, batch, image, length, guesses)
            sizes[value.name] = made
            is_guess |= guessed
        yield Shapes(sizes, batch, is_guess, settled)
        if not is_guess:
            return


def open_sizes(file: OnnxFile) -> list[dict[int, str]]:
    """For each input, the names of the sizes that may change beside the batch, by dimension."""
    symbol = _batch_symbol(file)
    return [
        {
            dim: size or f"{argument(value.name)}_{dim}"
            for dim, size in enumerate(value.sizes)
            if isinstance(size, str) and not (size == symbol and (size or not dim))
        }
        for value in file.inputs
    ]


def _sizes(
    value: Input,
    said: InputSpec | None,
    symbol: str | None,
    batch: int | None,
    image: int,
    length: int,
    guesses: dict[str, int],
) -> tuple[tuple[int | None, ...], bool]:
    """One input's sizes, and whether one of them is a guess."""
    made: list[int | None] = []
    guessed = False
    for dim, size in enumerate(value.sizes):
        if (size == symbol and (size or dim == 0)) or (dim == 0 and batch is not None and size == batch):
            made.append(None)
        elif isinstance(size, int):
            made.append(size)
        elif said is not None:
            made.append(guesses.setdefault(size, said.shape[dim]) if size else said.shape[dim])
        else:
            guess = image if len(value.sizes) >= 4 and dim >= 2 else length
            made.append(guesses.setdefault(size, guess) if size else guess)
            guessed = True
    return tuple(made), guessed


def _batch_symbol(file: OnnxFile) -> str | None:
    """The name of the batch where it may change; "" where the file only leaves it open."""
    first = next((value.sizes[0] for value in file.inputs if value.sizes), 1)
    return first if isinstance(first, str) else None


def _fixed_batch(file: OnnxFile) -> int | None:
    """The leading size that all inputs share."""
    leading = {value.sizes[0] for value in file.inputs if value.sizes}
    only = leading.pop() if len(leading) == 1 else None
    return only if isinstance(only, int) else None


def _given(file: OnnxFile, specs: Sequence[Spec]) -> dict[str, InputSpec]:
    """What the user gave, by the graph's names: named ones first, the others in order."""
    by_name = {argument(value.name): value for value in file.inputs}
    named = {spec.name for spec in specs if spec.name is not None}
    placed: dict[str, InputSpec] = {}
    wrong = sorted(named - by_name.keys())
    left = iter([name for name in by_name if name not in named])
    for spec in specs:
        name = spec.name if spec.name is not None else next(left, None)
        if name is None or wrong or not isinstance(spec, InputSpec):
            raise InputError(
                f"{file.path.name} takes {len(by_name)} inputs: {', '.join(by_name)}",
                hint=f"give each input once, e.g. --input {next(iter(by_name))}=1x3x224x224",
            )
        value = by_name[name]
        _check(value, spec, file)
        placed[value.name] = spec
    return placed


def _check(value: Input, spec: InputSpec, file: OnnxFile) -> None:
    fits = len(spec.shape) == len(value.sizes) and all(
        given == size or not isinstance(size, int) or dim == 0
        for dim, (given, size) in enumerate(zip(spec.shape, value.sizes, strict=True))
    )
    if not fits:
        wanted = ",".join(str(size or "?") for size in value.sizes)
        raise InputError(
            f"--input {spec} does not fit {file.path.name}: {value.name} has the sizes {wanted}",
            hint="leave --input out: the file says what it takes",
        )


def specs_at(file: OnnxFile, chosen: Shapes, batch: int, given: Sequence[Spec] = ()) -> tuple[InputSpec, ...]:
    """Sizes as specs for all inputs, of the types that the file says; the user's own batch and values win."""
    own = _given(file, given)
    batches = {spec.shape[0] for name, spec in own.items() if spec.shape and chosen.sizes[name][0] is None}
    sizes = chosen.at(max(batches, default=batch))
    made = []
    for value in file.inputs:
        spec = own.get(value.name, InputSpec(()))
        dtype = str(value.dtype).removeprefix("torch.")
        made.append(InputSpec(sizes[value.name], argument(value.name), dtype, spec.low, spec.high))
    return tuple(made)
