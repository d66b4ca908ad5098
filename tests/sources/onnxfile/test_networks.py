"""Real architectures, from both exporters: the same function, usable like any module, and pruned."""

import copy

import onnx
import pytest
import torch
from torch import nn

import peelcli as peel
from peelcli.sources.onnxfile import load
from peelcli.tensors import meta_copy, to_meta
from tests.sources.onnxfile.conftest import export
from tests.sources.onnxfile.nets import NETS, WAYS, example

CASES = [(name, way) for name in NETS for way in WAYS]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """All of them, made when they are first asked for, each with the module that it was made from."""
    folder, made = tmp_path_factory.mktemp("networks"), {}

    def get(name, way):
        if (name, way) not in made:
            torch.manual_seed(0)
            module = NETS[name][0]().eval()
            made[name, way] = export(module, (example(name),), folder / f"{name}_{way}.onnx", way), module
        return made[name, way]

    return get


@pytest.fixture(scope="session")
def rebuilt(files):
    made = {}

    def get(name, way):
        if (name, way) not in made:
            made[name, way] = load.load(files(name, way)[0])
        return made[name, way]

    return get


@pytest.mark.parametrize(("name", "way"), CASES)
def test_it_computes_what_the_original_does_at_any_batch(name, way, files, rebuilt):
    original, x = files(name, way)[1], example(name)
    for batch in (x, x[:1], torch.cat([x, x])):  # the file of "fixed" was made for one row
        with torch.no_grad():
            torch.testing.assert_close(rebuilt(name, way).module(batch), original(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "way"), CASES)
def test_it_runs_without_memory_and_in_double_precision(name, way, rebuilt):
    module, inputs, _ = rebuilt(name, way)
    with torch.no_grad():
        expected = module(*inputs)
        doubled = copy.deepcopy(module).double()(*(x.double() if x.is_floating_point() else x for x in inputs))
        with torch.device("meta"):
            shape = meta_copy(module)(*to_meta(inputs)).shape
    assert shape == expected.shape
    assert doubled.dtype is torch.float64
    torch.testing.assert_close(doubled.float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "way"), [("vit", "old"), ("tokens", "new"), ("shuffled", "fixed")])
def test_it_can_be_exported_with_a_dynamic_batch_and_trained(name, way, rebuilt):
    module, inputs, _ = rebuilt(name, way)
    rows = tuple(torch.cat([x, x]) for x in inputs)
    program = torch.export.export(module, rows, dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in rows))
    torch.testing.assert_close(program.module()(*inputs), module(*inputs))
    learner = copy.deepcopy(module).train()
    learner(*inputs).square().mean().backward()
    assert all(parameter.grad is not None for parameter in learner.parameters())


def test_layers_are_real_and_called_after_the_weights(rebuilt):
    module = rebuilt("vit", "new").module
    layers = dict(module.named_modules())
    assert isinstance(layers["conv_proj"], nn.Conv2d)
    assert isinstance(layers["encoder.layers.encoder_layer_0.self_attention.in_proj"], nn.Linear)
    assert isinstance(layers["encoder.layers.encoder_layer_0.mlp.0"], nn.Linear)
    assert isinstance(layers["encoder.ln"], nn.LayerNorm)
    assert {"class_token", "encoder.pos_embedding"} <= {name for name, _ in module.named_parameters()}


def test_layers_of_the_old_exporter_are_called_after_their_place(rebuilt):
    layers = dict(rebuilt("resnet", "old").module.named_modules())
    assert {"0", "4.conv1", "4.conv2", "5.downsample.0", "8"} <= layers.keys()


def test_sizes_are_read_from_attributes(rebuilt):
    """What the tracer lowers: no size is written into the code."""
    module = rebuilt("shuffled", "new").module
    sizes = [part.sizes[1:] for part in module.modules() if type(part).__name__ == "Reshape"]
    assert sizes[:2] == [(2, 8, 8, 8), (16, 8, 8)]


@pytest.mark.parametrize(("name", "way"), [("resnet", "old"), ("vit", "new")])
def test_it_is_pruned_and_written_in_all_formats(name, way, files, tmp_path):
    outs = [tmp_path / f"slim.{suffix}" for suffix in ("onnx", "pt", "safetensors")]
    slim, run = peel.prune(files(name, way)[0], flops="60%", align=4, out=outs)
    assert run.after.macs <= 0.6 * run.plan.before.macs
    assert {check.name: check.ok for check in run.checks}["onnx_parity"] is True
    assert {check.name: check.ok for check in run.checks}["dynamic_batch"] is True
    again = load.load(outs[0])
    x = example(name)
    with torch.no_grad():
        torch.testing.assert_close(again.module(x), slim(x), rtol=1e-4, atol=1e-4)


def test_weights_in_a_data_file_beside_it(files, tmp_path):
    path, module = files("resnet", "old")
    proto = onnx.load(path)
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    x = example("resnet")
    with torch.no_grad():
        torch.testing.assert_close(load.load(tmp_path / "net.onnx").module(x), module(x), rtol=1e-4, atol=1e-4)


def test_the_command_prunes_a_file_without_any_python(files, run_peel, tmp_path):
    path, _ = files("shuffled", "new")
    done = run_peel("prune", path, "--flops", "60%", "--align", "2", "--out", "slim.onnx")
    assert done.returncode == 0, done.stderr
    assert "onnx_parity" in done.stdout
    onnx.checker.check_model(str(tmp_path / "slim.onnx"))


def test_the_command_refuses_a_damaged_file_in_one_line(files, run_peel, tmp_path):
    path, _ = files("shuffled", "new")
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:-200])
    done = run_peel("prune", "cut.onnx", "--flops", "60%", "--out", "slim.onnx")
    assert done.returncode == 2
    assert "cut.onnx is truncated or damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "slim.onnx").exists()
