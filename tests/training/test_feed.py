"""Samples as batches, read here or by workers."""

from __future__ import annotations

import torch

from peelcli.samples import Samples
from peelcli.training.feed import InMemory, Part, Reader, Still, chunks, reseed


def source(shapes=((1, 2),) * 6):
    inputs = tuple((torch.full(shape, float(n)),) for n, shape in enumerate(shapes))
    return InMemory(Samples(inputs, "here", tuple(range(len(shapes)))))


class Noisy:
    """Another number each time, unless somebody sets the seed."""

    labelled, steady = False, False

    def __len__(self):
        return 4

    def read(self, position):
        return (torch.rand(1, 2),), None


def test_samples_of_one_shape_are_one_call():
    (chunk,) = chunks(source(), [4, 1])
    assert chunk.inputs[0].tolist() == [[4.0, 4.0], [1.0, 1.0]]
    assert (chunk.targets, chunk.positions) == ([4, 1], [4, 1])


def test_samples_of_other_shapes_are_other_calls():
    found = list(chunks(source(((1, 2), (1, 3), (1, 2))), [0, 1, 2]))
    assert [chunk.positions for chunk in found] == [[0, 2], [1]]


def test_a_model_of_single_samples_gets_single_samples():
    assert [chunk.positions for chunk in chunks(source(), [3, 0], single=True)] == [[3], [0]]


def test_a_part_has_positions_of_its_own():
    part = Part(source(), [5, 3])
    assert len(part) == 2
    assert part.read(1)[1] == 3


def test_workers_read_what_would_be_read_here():
    def batches(workers):
        reader = Reader(Noisy(), single=False, workers=workers, seed=1)
        return [chunk.inputs[0] for (chunk,) in reader.steps(range(2, 5), lambda step: [[step % 4, 0]], rank=0)]

    here, there = batches(0), batches(1)
    assert len(here) == 3
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    assert not torch.equal(here[0], here[1])


def test_outside_of_the_steps_a_sample_is_the_same_in_every_run_with_the_seed():
    told = []
    reseed(5, 0, 0)
    one = Still(Noisy(), 1).samples([3, 0], "here", lambda *figures: told.append(figures))
    reseed(6, 0, 0)
    (x,), _ = Still(Noisy(), 1).read(3)
    assert x.equal(one.inputs[0][0])
    assert not x.equal(one.inputs[1][0])
    assert not x.equal(Still(Noisy(), 2).read(3)[0][0])
    assert (one.name, one.targets, told) == ("here", None, [(1, 2), (2, 2)])
