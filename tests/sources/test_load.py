"""Any model file or name -> Subject: the whole way."""

import sys
import textwrap
import threading

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from peelcli.config import Source, pick
from peelcli.errors import InputError, PeelError, SourceError, UntrustedPickle, UsageError
from peelcli.sources.digest import model_id
from peelcli.sources.load import from_module, load


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(1)
    return Net()


@pytest.fixture
def factory(tmp_path):
    path = tmp_path / "factory_of_net.py"
    path.write_text(
        textwrap.dedent(
            f"""
            import sys
            def make():
                return sys.modules[{__name__!r}].Net()
            """
        )
    )
    yield f"{path}:make"
    sys.modules.pop("factory_of_net", None)


def tried(spec, **options):
    return load(str(spec), Source(**options))


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))


def test_a_pickled_module(net, tmp_path, monkeypatch):
    net.train().conv.weight.requires_grad_(False)
    path = tmp_path / "mein schönes modell.pt"
    torch.save({"model": net, "epoch": 3}, path)
    monkeypatch.chdir(tmp_path)
    subject = tried(path.name)
    assert same(subject.module, net)
    assert subject.module.training
    assert not subject.module.conv.weight.requires_grad
    assert subject.name == "mein schönes modell"
    assert subject.inputs[0].shape == (1, 3, 224, 224)
    assert subject.notes == (
        "weights taken from 'model' in mein schönes modell.pt",
        "input 1x3x224x224 guessed from the layer conv; give --input if the model runs on another",
    )


def test_a_given_input_leaves_no_note(net, tmp_path):
    torch.save(net, tmp_path / "m.pt")
    subject = tried(tmp_path / "m.pt", input=("2x3x8x8",))
    assert subject.inputs[0].shape == (2, 3, 8, 8)
    assert subject.notes == ()


@pytest.mark.parametrize("save", [torch.save, lambda w, path: save_file(w, path)], ids=["torch", "safetensors"])
def test_weights_with_a_factory(net, factory, tmp_path, save):
    save(net.state_dict(), tmp_path / "w.bin")
    subject = tried(tmp_path / "w.bin", factory=factory)
    assert same(subject.module, net)
    assert subject.name == "w"


def test_weights_without_a_factory(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    with pytest.raises(SourceError) as caught:
        tried(tmp_path / "w.pt")
    assert "holds weights only (a state dict with 9 tensors)" in caught.value.message
    assert "--factory" in caught.value.hint


def test_a_factory_alone_or_with_weights(net, factory, tmp_path):
    subject = tried(factory)
    assert subject.name == "factory_of_net.py:make"
    assert "the weights are random (seed 0)" in subject.notes
    torch.save(net.state_dict(), tmp_path / "w.pt")
    loaded = tried(factory, weights=str(tmp_path / "w.pt"))
    assert same(loaded.module, net)
    assert "the weights are random (seed 0)" not in loaded.notes


def test_a_name_with_weights(tmp_path):
    subject = tried("timm:test_resnet")
    assert subject.name == "timm:test_resnet"
    assert model_id(subject) == model_id(tried("timm:test_resnet"))
    with torch.no_grad():
        for parameter in subject.module.parameters():
            parameter.add_(1)
    torch.save({"state_dict": subject.module.state_dict()}, tmp_path / "w.pt")
    assert model_id(tried("timm:test_resnet", weights=str(tmp_path / "w.pt"))) == model_id(subject)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"weights": "w.pt"}, "--weights goes with a model by name"), ({"input": ("abc",)}, "--input 'abc' is no shape")],
)
def test_options_that_do_not_fit_a_file(net, tmp_path, options, said):
    torch.save(net, tmp_path / "m.pt")
    with pytest.raises(PeelError) as caught:
        tried(tmp_path / "m.pt", **options)
    assert said in caught.value.message


def test_a_factory_does_not_go_with_a_name():
    with pytest.raises(UsageError, match="--factory goes with a file of weights"):
        tried("timm:test_resnet", factory="a.py:b")


@pytest.mark.parametrize(
    ("spec", "said", "hint"),
    [
        ("modle.pt", "modle.pt: no such file", "did you mean model.pt?"),
        ("away/model.pt", "away/model.pt: no such file", "check the path"),
        ("resnet50", "resnet50: no such file", "torchvision:resnet50"),
        ("tim:resnet50", "tim:resnet50 is no file, name or factory", "timm:"),
        ("absent.py:make", "absent.py: no such file", "Python file"),
        (".", "is a directory", "file"),
        ("empty.pt", "empty.pt is empty", "again"),
    ],
)
def test_specs_that_lead_nowhere(spec, said, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pt").write_text("x")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(SourceError) as caught:
        tried(spec)
    assert said in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "mark"), "w"))

    torch.save({"state_dict": {"w": torch.zeros(1)}, "extra": Evil()}, tmp_path / "m.pt")
    with pytest.raises(UntrustedPickle, match=r"(io|_io|builtins)\.open"):
        tried(tmp_path / "m.pt")
    assert not (tmp_path / "mark").exists()


def test_nan_weights(net, factory, tmp_path):
    net.head.bias.data[0] = float("nan")
    torch.save(net, tmp_path / "m.pt")
    torch.save(net.state_dict(), tmp_path / "w.pt")
    for attempt in (
        lambda: tried(tmp_path / "m.pt"),
        lambda: tried(tmp_path / "w.pt", factory=factory),
        lambda: from_module(net, torch.zeros(1, 3, 8, 8)),
    ):
        with pytest.raises(SourceError, match=r"NaN or infinite weights: head\.bias"):
            attempt()


def test_an_input_that_does_not_fit(net, tmp_path):
    torch.save(net, tmp_path / "m.pt")
    with pytest.raises(InputError) as caught:
        tried(tmp_path / "m.pt", input=("1,4,32,32",))
    assert caught.value.message.startswith("the model does not take the input 1x4x32x32: ")
    assert "to have 3 channels" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint == "it runs with --input 1x3x224x224"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(net, dtype, tmp_path):
    torch.save(net.to(dtype), tmp_path / "m.pt")
    subject = tried(tmp_path / "m.pt")
    assert subject.inputs[0].dtype == dtype
    assert subject.module.conv.weight.dtype == dtype


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, torch.optim.swa_utils.AveragedModel, torch.compile, lambda m: torch.compile(nn.DataParallel(m))],
)
def test_wrappers_are_taken_off(net, wrap):
    subject = from_module(wrap(net), torch.zeros(1, 3, 8, 8))
    assert type(subject.module) is Net
    assert same(subject.module, net)
    assert subject.name == "Net"


def test_a_pickled_wrapper(net, tmp_path):
    torch.save(nn.DataParallel(net), tmp_path / "m.pt")
    assert type(tried(tmp_path / "m.pt").module) is Net


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: (x,), lambda x: [x], lambda x: None])
def test_examples_from_python(net, kind):
    net.train()
    subject = from_module(net, kind(torch.zeros(1, 3, 8, 8)), name="mine")
    assert subject.module is net
    assert isinstance(subject.inputs, tuple)
    assert subject.name == "mine"
    assert net.training
    assert net.norm.num_batches_tracked == 0


@pytest.mark.parametrize("example", ["1,3,8,8", (1, 3), (), {"x": 1}])
def test_examples_that_are_none(net, example):
    with pytest.raises(InputError, match="not a tensor or a tuple"):
        from_module(net, example)


def test_an_example_without_entries(net):
    with pytest.raises(InputError, match=r"^the input 0x3x8x8 is empty$"):
        from_module(net, torch.zeros(0, 3, 8, 8))


def test_an_example_in_another_precision(net):
    with pytest.raises(InputError) as caught:
        from_module(net.half(), torch.zeros(1, 3, 8, 8))
    assert caught.value.hint == "its weights are float16: give the input in that precision, or convert the model"


def test_an_argument_by_keyword_only(net):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, *, scale):
            return self.net(x) * scale

    with pytest.raises(InputError, match=r"^forward takes scale by keyword only") as caught:
        from_module(Scaled(), torch.zeros(1, 3, 8, 8))
    assert caught.value.hint == "wrap the model in a module whose forward gives it scale"


def test_a_module_that_can_not_be_copied(net):
    net.lock = threading.Lock()
    with pytest.raises(
        SourceError, match=r"^the module can't be copied: cannot pickle '_thread.lock' object$"
    ) as caught:
        from_module(net, torch.zeros(1, 3, 8, 8))
    assert caught.value.hint.startswith("give it a __deepcopy__")


def test_an_example_that_does_not_fit(net):
    with pytest.raises(InputError, match="does not take the input 1x3x2x2: Calculated padded"):
        from_module(net, torch.zeros(1, 3, 2, 2))


def test_no_module_at_all():
    with pytest.raises(UsageError, match=r"expected a torch\.nn\.Module, not dict"):
        from_module({}, torch.zeros(1))


def test_several_inputs(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, left, right):
            return self.fc(left) + self.fc(right)

    module, left, right = Two(), torch.zeros(1, 4), torch.zeros(2, 4)
    guessed = from_module(module)
    assert [value.shape for value in guessed.inputs] == [(1, 4), (1, 4)]
    assert guessed.notes[0].startswith("inputs left=1x4 and right=1x4 guessed from")
    assert from_module(module, (left, right)).inputs == (left, right)
    assert from_module(module, {"right": right, "left": left}).inputs == (left, right)
    asked = from_module(module, options=pick(Source, {"input": ["right=2x4", "1x4"]}))
    assert [value.shape for value in asked.inputs] == [(1, 4), (2, 4)]
    with pytest.raises(InputError) as caught:
        from_module(module, options=pick(Source, {"input": ["right=2x4", "leftt=1x4"]}))
    assert caught.value.message == "forward has no argument named leftt: forward(left, right)"
    assert caught.value.hint == "it runs with --input left=1x4 --input right=1x4"


def test_an_input_of_the_wrong_type_is_answered_with_the_signature_and_what_runs():
    class Ids(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(9, 4)

        def forward(self, ids, scale=1.0, **others):
            return self.table(ids) * scale

    for text in ("ids=1x16", "1x3:int64:<10"):
        with pytest.raises(InputError) as caught:
            from_module(Ids(), options=pick(Source, {"input": [text]}))
        assert caught.value.message.endswith("it is called as forward(ids, scale=1.0, **others)")
        assert caught.value.hint == "it runs with --input '1x16:int64:<9'"


def test_inputs_from_a_function(net, tmp_path):
    file = tmp_path / "given.py"
    file.write_text("import torch\ndef one(): return torch.rand(2, 3, 8, 8)\ndef two(): raise OSError('gone')\n")
    subject = from_module(net, options=pick(Source, {"inputs": f"{file}:one"}))
    assert subject.inputs[0].shape == (2, 3, 8, 8)
    assert subject.notes == ("--inputs given.py:one gave the input",)
    with pytest.raises(SourceError, match="two raised OSError: gone"):
        from_module(net, options=pick(Source, {"inputs": f"{file}:two"}))
    with pytest.raises(UsageError, match="--input and --inputs both"):
        from_module(net, options=pick(Source, {"inputs": f"{file}:one", "input": ["1x3x8x8"]}))
