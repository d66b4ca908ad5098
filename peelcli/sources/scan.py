"""What a pickle would import and call, found without running it.

A pickle is a program for a small stack machine. This walks that program once and carries, instead of values, what is
needed to tell three things apart: a global that is only stored (an activation kept in an attribute), a class of which
an empty instance is made (NEWOBJ: `cls.__new__(cls)`), and something that is called with arguments from the file.
Where it can't tell it says so in `odd`; who loads must refuse then.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

_UNKNOWN = object()
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
_CHANGES = {"APPEND": 1, "SETITEM": 2, "BUILD": 1, "APPENDS": None, "SETITEMS": None, "ADDITEMS": None}  # None: to mark
# Calls its first argument, which torch itself always sets to one of its own rebuild functions.
_REBUILD_TYPE = "torch._tensor._rebuild_from_type_v2"
_REBUILD_VIEW = "torch._utils._rebuild_"  # takes a storage, an offset, sizes and strides


class Malformed(Exception):
    """The bytes are no pickle, or the pickle breaks off."""


@dataclass(frozen=True, slots=True, order=True)
class Global:
    """Something that the pickle imports: module path and name in it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Storage:
    """A block of memory that a pickle points at.

    Attributes:
        kind: the name of torch's class for it, such as "FloatStorage".
        record: where its bytes are.
        entries: how many it claims to hold.
    """

    kind: str
    record: str
    entries: int


@dataclass(slots=True)
class Scan:
    """What a pickle would do.

    Attributes:
        imports: every global that is named.
        called: those that are called with arguments from the file.
        odd: what is done by other means than naming a global, one phrase each.
        storages: the blocks of memory that tensors are made of.
        views: tensors, as what they are rebuilt from: a storage, an offset, sizes and strides where all is well.
    """

    imports: set[Global] = field(default_factory=set)
    called: set[Global] = field(default_factory=set)
    odd: set[str] = field(default_factory=set)
    storages: set[Storage] = field(default_factory=set)
    views: list[tuple[Any, ...]] = field(default_factory=list)


def scan(file: IO[bytes]) -> Scan:
    """Read one pickle up to its STOP and leave the file just behind it.

    Raises:
        Malformed: there is no whole pickle here.
    """
    machine = _Machine()
    try:
        for op, argument, _ in pickletools.genops(file):
            machine.step(op, argument)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise Malformed(str(error)) from None
    return machine.found


class _Machine:
    """The stack machine of pickle, on values reduced to: Global, Storage, text, number, a tuple of such, or unknown."""

    def __init__(self) -> None:
        self.found = Scan()
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks beneath each open mark, as in the pickle module
        self.memo: dict[int, Any] = {}

    def step(self, op: pickletools.OpcodeInfo, argument: Any) -> None:
        name = op.name
        if special := getattr(self, f"_op_{name.lower()}", None):
            special(argument)
        elif name in _TUPLES:
            self.stack.append(tuple(self._take(_TUPLES[name])))
        elif name in _CHANGES:
            self._change(_CHANGES[name])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("EXT1", "EXT2", "EXT4"):
            self.found.odd.add("an entry of the extension registry")
            self.stack.append(_UNKNOWN)
        elif "UNICODE" in name or name.endswith("STRING") or name in _NUMBERS:
            self.stack.append(argument)
        else:
            self._plain(op)

    def _plain(self, op: pickletools.OpcodeInfo) -> None:
        """Any other opcode: what it takes and leaves is described by pickletools."""
        takes = list(op.stack_before)
        if pickletools.markobject in takes:
            self._take_to_mark()
            takes = takes[: takes.index(pickletools.markobject)]
        self._take(len(takes))
        self.stack.extend(_UNKNOWN for _ in op.stack_after)

    def _take(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if start < 0:
            raise ValueError("the stack runs empty")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _take_to_mark(self) -> list[Any]:
        taken = self.stack
        self.stack = self.below.pop()
        return taken

    def _import(self, module: str, name: str) -> Global:
        """Note a global under the name by which Python 3 looks it up."""
        if (module, name) in NAME_MAPPING:
            module, name = NAME_MAPPING[module, name]
        found = Global(IMPORT_MAPPING.get(module, module), name)
        self.found.imports.add(found)
        return found

    def _call(self, function: Any, arguments: Sequence[Any]) -> None:
        if not isinstance(function, Global):
            self.found.odd.add("a call of something computed")
            return
        self.found.called.add(function)
        if str(function).startswith(_REBUILD_VIEW):
            self.found.views.append(tuple(arguments[:4]))
        if str(function) == _REBUILD_TYPE:
            inner = arguments[0] if arguments else None
            if not (isinstance(inner, Global) and str(inner).startswith("torch._utils._rebuild_")):
                self.found.odd.add("a tensor rebuilt by a foreign function")

    def _change(self, count: int | None) -> None:
        """An opcode that changes the object below its operands: a list, a dict, an instance; never a global."""
        if count is None:
            self._take_to_mark()
        else:
            self._take(count)
        if isinstance(self.stack[-1], Global):
            self.found.odd.add(f"a change to {self.stack[-1]} itself")

    def _make(self, cls: Any) -> None:
        if not isinstance(cls, Global):
            self.found.odd.add("an instance of something computed")
        self.stack.append(_UNKNOWN)

    def _op_mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _op_pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._take_to_mark()

    def _op_pop_mark(self, _: Any) -> None:
        self._take_to_mark()

    def _op_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _op_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _op_tuple(self, _: Any) -> None:
        taken = tuple(self._take_to_mark())
        self.stack.append(taken)

    def _op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self._import(module, name))

    def _op_stack_global(self, _: Any) -> None:
        module, name = self._take(2)
        if isinstance(module, str) and isinstance(name, str):
            self.stack.append(self._import(module, name))
        else:
            self.found.odd.add("an import whose name is computed")
            self.stack.append(_UNKNOWN)

    def _op_inst(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._call(self._import(module, name), self._take_to_mark())
        self.stack.append(_UNKNOWN)

    def _op_obj(self, _: Any) -> None:
        function, *arguments = self._take_to_mark()
        self._call(function, arguments)
        self.stack.append(_UNKNOWN)

    def _op_reduce(self, _: Any) -> None:
        function, arguments = self._take(2)
        self._call(function, arguments if isinstance(arguments, tuple) else ())
        self.stack.append(_UNKNOWN)

    def _op_binpersid(self, _: Any) -> None:
        """Storages, and in files before torch 1.6 classes: ("module", class, file, source) stands for the class."""
        (key,) = self._take(1)
        named = isinstance(key, tuple) and len(key) == 4 and key[0] == "module"
        self.stack.append(key[1] if named else self._storage(key))

    def _storage(self, key: Any) -> Any:
        """("storage", class, record, device, entries); unknown where a key is anything else."""
        match key:
            case ("storage", Global() as kind, str() as record, _, int() as entries, *_):
                storage = Storage(kind.name, record, entries)
                self.found.storages.add(storage)
                return storage
            case _:
                return _UNKNOWN

    def _op_newobj(self, _: Any) -> None:
        self._make(self._take(2)[0])

    def _op_newobj_ex(self, _: Any) -> None:
        self._make(self._take(3)[0])
