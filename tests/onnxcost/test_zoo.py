"""The count from the file against torch's count of the module, for real architectures in small."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from peelcli import pipeline
from peelcli.export import onnx
from peelcli.footprint import UNWEIGHTED
from peelcli.onnxcost.count import count
from peelcli.records import Subject
from peelcli.report.overview import differences

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples" / "benchmarks"))

from zoo_models.entry import inputs_of, liven

from tests.zoo.test_small_zoo import MORE, SMALL

EVERY = {**SMALL, **MORE}


def counts_of(name, folder):
    entry, _ = EVERY[name]
    module = liven(entry)
    subject = Subject(module, inputs_of(entry, module), name)
    path = folder / "net.onnx"
    onnx.write(subject, {}, path, path.name)
    return pipeline.footprint(subject), count(path)


def check(name, folder):
    """Equal multiply-adds, and equal parameters or every difference in a layer that is named."""
    module, file = counts_of(name, folder)
    assert file.macs == module.macs
    assert file.uncounted == ()
    assert file.peak_bytes
    differing = list(differences(module, file))
    moved = [one for one in differing if one.macs[0] != one.macs[1] and one.name != UNWEIGHTED]
    strange = [one for one in moved if one.params[0] == one.params[1] and one.macs[0]]
    assert strange == [], "only where a weight is tied, or the module computes it"
    assert sum(one.params[1] - one.params[0] for one in differing) == file.params - module.params
    return differing


@pytest.mark.parametrize("name", ["static heads (ViT)", "channels last (MTCNN)"])
def test_file_and_module_are_equal(name, tmp_path):
    assert check(name, tmp_path) == []


def test_what_the_exporter_folds_is_named(tmp_path):
    differing = {one.name: one.params for one in check("Conv1D (GPT-2)", tmp_path)}
    assert differing["transformer.wpe"] == (1024, 0)  # the positions of 16 tokens are looked up once
    assert differing["transformer.wte"] == (1920, 0)  # tied; the file has it twice, under the other name
    assert differing["lm_head"] == (0, 2 * 1920)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_the_whole_small_zoo(name, tmp_path):
    check(name, tmp_path)
