"""Pickled checkpoints: what is safe opens, what would run code is refused and has run nothing."""

import argparse
import collections
import functools
import io
import pathlib
import pickle
import sys
import textwrap
import types
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from peelcli.errors import SourceError, UntrustedPickle
from peelcli.sources import pickled
from peelcli.sources.sniff import Kind, sniff

Point = collections.namedtuple("Point", "x y")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.act = nn.functional.relu

    def forward(self, x):
        return self.act(self.conv(x))


class Greedy(nn.Module):
    """A module whose constructor does something: it may be made empty, never called by a file."""

    def __init__(self, path):
        super().__init__()
        pathlib.Path(path).touch()


class Careless(nn.Module):
    def __new__(cls, *args):
        pathlib.Path(*args).touch() if args else None
        return super().__new__(cls)


class Farewell(nn.Module):
    """A module that does something when it goes, with a path that a file would choose."""

    def __del__(self):
        pathlib.Path(self.path).unlink()


class Reduces:
    """Pickles as whatever `__reduce__` should return."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def opened(path, **options):
    return pickled.load(path, sniff(path), **options)


def saved(value, path, **options):
    torch.save(value, path, **options)
    return path


def with_pickle(program, path):
    """A torch checkpoint whose pickle is `program`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return path


def holding(value):
    """A module that keeps a value in an attribute."""
    module = Net()
    module.kept = value
    return module


def hostile(mark):
    """Pickled values that would create the file `mark`, each by another way."""
    text = str(mark)
    run = Reduces(pathlib.Path.touch, (pathlib.Path(text),))
    return {
        "a shell command": Reduces(__import__("os").system, (f"touch '{text}'",)),
        "eval": Reduces(eval, (f"open({text!r}, 'w')",)),
        "inside a dict": {
            "epoch": 1,
            "state_dict": {"w": torch.zeros(1), "x": Reduces(exec, (f"open({text!r}, 'w')",))},
        },
        "inside a module": holding(run),
        "a constructor": Reduces(Greedy, (text,)),
        "a constructor through torch": Reduces(
            torch._tensor._rebuild_from_type_v2, (Greedy, torch.Tensor, (text,), {})
        ),
        "a partial": Reduces(functools.partial, (open,), (open, (text, "w"), {}, {})),
        "getattr": Reduces(getattr, (pathlib.Path(text), "touch")),
        "map": Reduces(map, (pathlib.Path.touch, [pathlib.Path(text)])),
        "__new__": Reduces(Careless.__new__, (Careless, text)),
    }


@pytest.mark.parametrize("way", hostile("x"))
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_code_is_refused_and_not_run(way, new, tmp_path):
    mark = tmp_path / "mark"
    path = saved(hostile(mark)[way], tmp_path / "model.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(SourceError) as caught:
        opened(path)
    assert not mark.exists()
    assert isinstance(caught.value, UntrustedPickle)
    assert caught.value.imports
    assert "nothing was executed" in caught.value.message
    assert "--trust" in caught.value.hint


def test_the_refusal_names_the_import(tmp_path):
    path = saved(hostile(tmp_path / "mark")["a shell command"], tmp_path / "model.pt")
    with pytest.raises(UntrustedPickle, match=r"posix\.system"):
        opened(path)


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(X\x05\x00\x00\x00falsetR.",
        b"(X\x05\x00\x00\x00falseiposix\nsystem\n.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x05false\x85R.",
        b"\x80\x02ctorch.nn.modules.linear\nLinear\nK\x02K\x02\x86R.",
        b"\x80\x02ctorch.nn.modules.linear\nLinear\n}b.",
        b"\x80\x04\x82\x01.",
    ],
    ids=["protocol 0", "INST", "protocol 4", "a layer's constructor", "a change to a class", "extension registry"],
)
def test_hand_written_programs_are_refused(program, tmp_path):
    with pytest.raises(UntrustedPickle):
        opened(with_pickle(program, tmp_path / "model.pt"))
    bare = tmp_path / "bare.pt"
    bare.write_bytes(program)
    with pytest.raises(UntrustedPickle):
        pickled.load(bare, Kind.TORCH_LEGACY)


def test_a_class_with_code_in_new_is_refused(tmp_path):
    mark = tmp_path / "mark"
    path = saved(Careless(), tmp_path / "model.pt")
    program = zipfile.ZipFile(path).read("model/data.pkl")
    text = str(mark).encode()
    program = program.replace(
        b"Careless\nq\x00)", b"Careless\nq\x00X" + len(text).to_bytes(4, "little") + text + b"\x85", 1
    )
    with pytest.raises(UntrustedPickle, match="Careless"):
        opened(with_pickle(program, path))
    assert not mark.exists()


def test_a_class_with_code_in_del_is_refused(tmp_path):
    with pytest.raises(UntrustedPickle, match="Farewell"):
        opened(with_pickle(f"\x80\x02c{__name__}\nFarewell\n)\x81}}b.".encode("latin1"), tmp_path / "model.pt"))


def test_a_partial_of_a_model_is_refused(tmp_path):
    mark = tmp_path / "mark"
    value = functools.partial(Greedy, str(mark))
    with pytest.raises(SourceError, match=r"functools\.partial of .*Greedy"):
        opened(saved(value, tmp_path / "model.pt"))
    aimed_later = Reduces(functools.partial, (nn.LayerNorm,), (Greedy, (str(mark),), {}, {}))
    with pytest.raises(SourceError, match=r"functools\.partial of .*Greedy"):
        opened(saved(aimed_later, tmp_path / "model.pt"))
    assert not mark.exists()


def test_a_graph_module_is_refused_because_it_is_code(tmp_path):
    with pytest.raises(UntrustedPickle, match="reduce_graph_module"):
        opened(saved(torch.fx.symbolic_trace(nn.Sequential(nn.ReLU())), tmp_path / "model.pt"))


def test_a_file_imports_nothing_that_is_not_a_model_package(tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    (tmp_path / "sideeffect.py").write_text(f"open({str(mark)!r}, 'w')\n")
    package = tmp_path / "pretrainedmodels"  # a known package that is not installed here
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_private.py").write_text(f"open({str(mark)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("sideeffect", "pretrainedmodels._private", "pretrainedmodels.__main__"):
        program = b"\x80\x02c" + module.encode() + b"\nNet\n)\x81}b."
        with pytest.raises(SourceError, match=f"needs classes that are not .*{module}.Net"):
            opened(with_pickle(program, tmp_path / "model.pt"))
        assert module not in sys.modules
    assert not mark.exists()


def test_a_model_package_that_is_not_installed_is_named(tmp_path):
    path = with_pickle(b"\x80\x02cfacenet_pytorch.models\nNet\n)\x81}b.", tmp_path / "model.pt")
    with pytest.raises(SourceError) as caught:
        opened(path)
    assert caught.value.hint == "pip install facenet_pytorch"


def test_modules_open_as_they_were_saved(tmp_path):
    model = Net().train()
    model.conv.weight.requires_grad_(False)
    model.norm_layer, model.place, model.size = functools.partial(nn.LayerNorm, eps=1e-6), Point(1, 2), torch.Size([2])
    with pytest.raises(UntrustedPickle, match="Point"):  # not a layer, not of a known package
        opened(saved(model, tmp_path / "model.pt"))
    del model.place
    back = opened(saved(model, tmp_path / "ünï côde.pt"))
    assert type(back) is Net
    assert back.training
    assert not back.conv.weight.requires_grad
    assert back.act is nn.functional.relu
    assert back.norm_layer(4).eps == 1e-6
    assert pickle.loads(pickle.dumps(back.norm_layer)).func is nn.LayerNorm  # as an ordinary partial
    assert torch.equal(back.conv.weight, model.conv.weight)


def test_configs_and_named_tuples_of_known_packages_open(tmp_path):
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    model = lite.EfficientNet.from_name("efficientnet-lite0")
    back = opened(saved(model, tmp_path / "model.pt"))
    assert back._global_params == model._global_params


def test_what_training_scripts_keep_beside_the_weights(tmp_path):
    kept = {
        "state_dict": {"w": torch.ones(2)},
        "args": argparse.Namespace(lr=0.1, out=pathlib.PosixPath("x")),
        "best": np.float64(0.5),
        "seen": {1, 2},
        "frozen": frozenset({3}),
        "counts": collections.Counter("aab"),
        "span": range(3),
    }
    back = opened(saved(kept, tmp_path / "checkpoint.pth"))
    assert back["best"] == 0.5
    assert back["args"].lr == 0.1
    assert back["frozen"] == frozenset({3})


def test_half_types_tied_and_strided_tensors(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).to(torch.bfloat16)
    model[1].weight = model[0].weight
    back = opened(saved(model, tmp_path / "model.pt"))
    assert back[0].weight is back[1].weight
    assert back[0].weight.dtype == torch.bfloat16


@pytest.fixture
def script(tmp_path):
    """A training script and the module that it pickles as __main__.Small; the script must not run its main block."""
    path = tmp_path / "train me.py"
    path.write_text(
        textwrap.dedent(
            f"""
            from torch import nn
            from helper_beside import WIDTH

            def double(x):
                return 2 * x

            class Small(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.fc = nn.Linear(WIDTH, 2)
                    self.post = double

                def forward(self, x):
                    return self.post(self.fc(x))

            if __name__ == "__main__":
                open({str(tmp_path / "mark")!r}, "w")
            """
        )
    )
    (tmp_path / "helper_beside.py").write_text("WIDTH = 3\n")
    yield path
    for name in [
        name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(str(tmp_path))
    ]:
        del sys.modules[name]


@pytest.fixture
def pickled_by_script(script, tmp_path, monkeypatch):
    module = types.ModuleType("__main__")
    monkeypatch.syspath_prepend(script.parent)
    exec(script.read_text().replace('== "__main__"', '== "no"'), module.__dict__)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "__main__", module)
        torch.save({"model": module.Small()}, tmp_path / "small.pt")
    sys.modules.pop("helper_beside", None)
    sys.path.remove(str(script.parent))
    return tmp_path / "small.pt"


def test_a_class_of_the_script_is_missing_without_code(pickled_by_script):
    with pytest.raises(SourceError) as caught:
        opened(pickled_by_script)
    assert not isinstance(caught.value, UntrustedPickle)
    assert "__main__.Small" in caught.value.message
    assert "--code" in caught.value.hint


@pytest.mark.parametrize("trust", [False, True])
def test_code_brings_the_classes_and_runs_no_main_block(pickled_by_script, script, trust, tmp_path):
    model = opened(pickled_by_script, code=script, trust=trust)["model"]
    assert type(model).__name__ == "Small"
    assert model(torch.zeros(1, 3)).shape == (1, 2)
    assert not (tmp_path / "mark").exists()
    assert not list(tmp_path.rglob("*train*.pyc"))
    again = io.BytesIO()
    torch.save(model, again)  # its class can be found under its own name
    assert again.tell() > 0


def test_code_that_lacks_the_class_is_named(pickled_by_script, tmp_path):
    other = tmp_path / "other_code.py"
    other.write_text("x = 1\n")
    with pytest.raises(SourceError, match=r"other_code\.py does not define: __main__\.Small"):
        opened(pickled_by_script, code=other)


def test_trust_runs_what_the_file_says(tmp_path):
    mark = tmp_path / "mark"
    opened(saved(hostile(mark)["a shell command"], tmp_path / "model.pt"), trust=True)
    assert mark.exists()


def test_trust_opens_old_files_and_bare_pickles(tmp_path):
    old = saved(Net(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    bare = tmp_path / "bare.pkl"
    bare.write_bytes(pickle.dumps(Net()))
    for path in (old, bare):
        assert type(opened(path, trust=True)) is Net
    with pytest.raises(SourceError, match="only running it opens"):
        opened(old)
    with pytest.raises(UntrustedPickle, match="_load_from_bytes"):
        opened(bare)


def test_trust_can_not_bring_what_is_not_there(pickled_by_script):
    with pytest.raises(SourceError) as caught:
        opened(pickled_by_script, trust=True)
    assert "Small" in caught.value.message
    assert "--code" in caught.value.hint


def test_legacy_state_dicts_open(tmp_path):
    path = saved(Net().state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert set(opened(path)) == {"conv.weight", "conv.bias"}


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("trust", [True, False], ids=["trust", "safe"])
def test_truncated_anywhere_is_one_clear_line(new, trust, tmp_path):
    model = nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30))
    path = saved(model.state_dict(), tmp_path / "model.pt", _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    for length in [*range(1, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError) as caught:
            opened(path, trust=trust)
        assert "\n" not in caught.value.message
        if length > 100:
            assert "truncated or damaged" in caught.value.message


def test_another_pickle_protocol_is_told(tmp_path):
    path = saved(Net().state_dict(), tmp_path / "model.pt", pickle_protocol=5)
    with pytest.raises(SourceError, match="can't be loaded: Unsupported operand"):
        opened(path)
    assert set(opened(path, trust=True)) == {"conv.weight", "conv.bias"}
