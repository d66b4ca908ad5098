"""What a pickle would do, told without running it."""

import io
import pickle
import pickletools

import pytest
import torch
from torch import nn

from peelcli.sources.scan import Global, Malformed, scan


def scanned(program: bytes):
    return scan(io.BytesIO(program))


def names(found):
    return {str(each) for each in found}


class Called:
    def __reduce__(self):
        return (print, ("never",))


class Plain:
    pass


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_found_in_every_protocol(protocol, capsys):
    found = scanned(pickle.dumps([1, {"a": Called()}], protocol=protocol))
    assert "builtins.print" in names(found.called)
    assert not found.odd
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_an_instance_that_is_only_made_is_not_a_call(protocol):
    found = scanned(pickle.dumps([Plain(), Plain, nn.ReLU], protocol=protocol))
    assert names(found.imports) == {f"{__name__}.Plain", "torch.nn.modules.activation.ReLU"}
    assert found.called == set()
    assert not found.odd


def test_python_2_names_are_read_as_python_3_does():
    assert names(scanned(b"\x80\x02c__builtin__\neval\n.").imports) == {"builtins.eval"}
    assert names(scanned(pickle.dumps({1, 2}, protocol=2)).called) == {"builtins.set"}


@pytest.mark.parametrize(
    ("program", "odd"),
    [
        (b"\x80\x04\x82\x01.", "an entry of the extension registry"),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94}\x93.", "an import whose name is computed"),
        (b"\x80\x02}X\x01\x00\x00\x00a\x85R.", "a call of something computed"),
        (b"\x80\x02})\x81.", "an instance of something computed"),
        (b"\x80\x02cbuiltins\nlist\n}b.", "a change to builtins.list itself"),
        (b"\x80\x02ctypes\nModuleType\nX\x01\x00\x00\x00aNs.", "a change to types.ModuleType itself"),
    ],
)
def test_what_it_cannot_follow_is_said(program, odd):
    assert odd in scanned(program).odd


@pytest.mark.parametrize(
    "program",
    [
        b"(cos\nsystem\nX\x01\x00\x00\x00ao.",  # OBJ
        b"(X\x01\x00\x00\x00aios\nsystem\n.",  # INST
        b"cos\nsystem\np0\n0g0\n(X\x01\x00\x00\x00atR.",  # REDUCE through the memo
        b"cos\nsystem\n2(X\x01\x00\x00\x00atR0.",  # REDUCE of a duplicate
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x8c\x01a\x85R.",  # STACK_GLOBAL
        b"(cos\nsystem\n1cos\nsystem\n(X\x01\x00\x00\x00atR.",  # POP_MARK before it
    ],
)
def test_a_call_is_found_however_it_is_written(program):
    assert names(scanned(program).called) == {"os.system"}


def test_a_foreign_function_inside_a_tensor_rebuild_is_odd():
    class Inner:
        def __reduce__(self):
            return (torch._tensor._rebuild_from_type_v2, (print, torch.Tensor, ("x",), {}))

    assert "a tensor rebuilt by a foreign function" in scanned(pickle.dumps(Inner(), protocol=2)).odd


def test_a_class_named_by_a_file_before_torch_1_6_is_followed():
    class Pickler(pickle.Pickler):
        seen = False

        def persistent_id(self, value):
            if self.seen or not isinstance(value, type):
                return None
            self.seen = True
            return ("module", value, "file.py", "source")

    file = io.BytesIO()
    Pickler(file, protocol=2).dump(Plain())
    found = scanned(file.getvalue())
    assert names(found.imports) == {f"{__name__}.Plain"}
    assert not found.odd


def test_it_stops_behind_the_first_pickle():
    file = io.BytesIO(pickle.dumps(1, 2) + pickle.dumps(print, 2))
    assert scan(file).imports == set()
    assert scan(file).imports == {Global("builtins", "print")}


@pytest.mark.parametrize("program", [b"", b"hello", b"\x80\x02", b"\x80\x02R.", b"0.", b"1.", b"\x80\x02h\x05.", b"."])
def test_what_is_no_pickle_is_malformed(program):
    with pytest.raises(Malformed):
        scanned(program)


def test_cut_anywhere_it_is_malformed():
    whole = pickle.dumps({"a": [1, 2.0, "x"], "b": Plain()}, protocol=2)
    for length in range(len(whole)):
        with pytest.raises(Malformed):
            scanned(whole[:length])


def test_every_opcode_of_python_is_handled():
    program = pickletools.optimize(pickle.dumps([b"x", bytearray(b"y"), {1}, frozenset({2}), 10**30, 1.5, None], 5))
    assert scanned(program).odd == set()
