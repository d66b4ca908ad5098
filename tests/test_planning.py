"""From a subject and a budget to a proven plan: what breaks a proof is locked, named and planned around."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from peelcli import planning, proving
from peelcli.config import Budget, Options
from peelcli.errors import BudgetOutOfReach, CheckFailed, NothingToPrune
from peelcli.graph import trace
from peelcli.records import Check, Costs, Slice, Subject
from tests.support import zoo
from tests.support.parts import image

FREE = Options(align=1)
UNIFORM = Options(align=1, allocate="uniform")  # every group is cut


def settle(subject: Subject, budget: Budget, options: Options = FREE) -> planning.Settled:
    clock = planning.Clock(None)
    return planning.settle(subject, planning.prepare(subject, options, clock), budget, options, clock)


@pytest.fixture
def by_torch_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are made from torch-pruning's graph, which misreads some networks."""
    honest = trace.trace
    monkeypatch.setattr(trace, "trace", lambda *args: honest(*args[:3], "depgraph"))


def locked_in(settled: planning.Settled) -> dict[str, str]:
    """Groups locked for another reason than that they are outputs."""
    cuts = (cut.group for cut in settled.plan.cuts)
    return {g.name: g.locked.reason for g in cuts if g.locked and "output" not in g.locked.reason}


@pytest.mark.parametrize("method", ["peel", "uniform", "greedy"])
@pytest.mark.parametrize("score", ["bn", "l1", "l2", "fpgm", "random"])
def test_every_allocator_with_every_scorer(method, score):
    settled = settle(zoo.subject("resnet"), Budget(flops="60%"), Options(align=1, allocate=method, score=score))
    assert settled.failed == ()
    assert [check.ok for check in settled.checks] == [True] * 6
    assert settled.after == settled.plan.predicted
    assert settled.after.macs <= 0.6 * settled.plan.before.macs


def settle_or_refuse(name: str, budget: Budget) -> planning.Settled | str:
    """What came of it, or the message of the refusal."""
    try:
        return settle(zoo.subject(name), budget, UNIFORM)
    except (NothingToPrune, BudgetOutOfReach) as error:
        return error.message


@pytest.mark.parametrize("name", zoo.SOUND)
def test_sound_networks_are_settled_at_the_first_try(name, monkeypatch):
    monkeypatch.setattr(proving, "broken_groups", lambda *_: pytest.fail("a proof failed"))
    result = settle_or_refuse(name, Budget(params="95%"))
    if isinstance(result, str):
        assert "locked because" not in result
    else:
        assert result.failed == ()
        assert result.after.params <= 0.95 * result.plan.before.params


@pytest.mark.usefixtures("by_torch_pruning")
@pytest.mark.parametrize("name", zoo.MISREAD)
def test_what_is_misread_is_locked_or_refused_but_never_wrong(name):
    result = settle_or_refuse(name, Budget(params="80%"))
    if isinstance(result, str):
        assert "locked because cutting them breaks the proof: " in result
    else:
        assert result.failed == ()
        assert result.after.params <= 0.8 * result.plan.before.params
        assert any(reason.startswith("cutting it breaks the proof") for reason in locked_in(result).values())


def test_a_corrupted_group_is_locked_named_and_planned_around(monkeypatch):
    subject = zoo.subject("resnet")
    honest = trace.trace

    def corrupted(*args):
        """One group's consumer loses other columns than its producer rows."""
        graph = honest(*args)
        groups = tuple(replace(g, slices=shifted(g.slices)) if g.name == "2.conv1" else g for g in graph.groups)
        return replace(graph, groups=groups)

    def shifted(slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
        return tuple(
            replace(s, indices=(*s.indices[1:], s.indices[0])) if s.tensor == "2.conv2.weight" else s for s in slices
        )

    monkeypatch.setattr(trace, "trace", corrupted)
    settled = settle(subject, Budget(flops="60%"))
    assert settled.failed == ()
    ((name, reason),) = locked_in(settled).items()
    assert name == "2.conv1"
    assert reason.startswith("cutting it breaks the proof (masked_equivalence is ")
    assert reason.endswith("allowed is 1e-09)")
    (cut,) = (cut for cut in settled.plan.cuts if cut.group.name == "2.conv1")
    assert cut.width == cut.group.full
    assert any(cut.width < cut.group.full for cut in settled.plan.cuts)


@pytest.mark.usefixtures("by_torch_pruning")
def test_a_group_whose_cut_does_not_run_is_locked_with_what_forward_said():
    settled = settle(zoo.subject("fixed_view"), Budget(flops="50%"), UNIFORM)
    assert settled.failed == ()
    ((name, reason),) = locked_in(settled).items()
    assert name == "two.0"
    assert "slim_model_runs failed: RuntimeError: shape '[-1, 128]' is invalid" in reason


@pytest.mark.usefixtures("by_torch_pruning")
def test_a_refusal_after_failed_proofs_names_the_groups():
    with pytest.raises(BudgetOutOfReach) as caught:
        settle(zoo.subject("fixed_view"), Budget(flops="15%"), UNIFORM)
    assert caught.value.message.endswith("; locked because cutting them breaks the proof: two.0")
    assert str(caught.value) == caught.value.message


def test_a_proof_that_nothing_mends_fails_the_run(monkeypatch):
    never = Check("masked_equivalence", False, 1.0, 1e-9)
    monkeypatch.setattr(planning.verify, "equivalence", lambda *_: never)
    tried = []
    monkeypatch.setattr(proving, "broken_groups", lambda *_: tried.append(1) or ())
    settled = settle(zoo.subject("mlp"), Budget(flops="50%"))
    assert settled.failed == (never,)
    assert len(tried) == 1
    assert "masked_equivalence is 1, allowed is 1e-09" in planning.failure(settled).message
    assert isinstance(planning.failure(settled), CheckFailed)


@pytest.mark.parametrize("budget", [Budget(flops="100%"), Budget(flops="1G", params="100%"), Budget(params="5M")])
def test_a_model_that_meets_its_budget_is_left_as_it_is(budget):
    subject = zoo.subject("resnet")
    settled = settle(subject, budget)
    assert settled.failed == ()
    assert all(cut.width == cut.group.full for cut in settled.plan.cuts)
    assert settled.after == settled.plan.before
    assert "the model already meets the budget: nothing was cut" in settled.plan.notes
    with torch.no_grad():
        assert torch.equal(settled.slim(*subject.inputs), subject.module(*subject.inputs))


def test_percent_is_of_each_count_s_own_original():
    subject = zoo.subject("resnet")
    settled = settle(subject, Budget(flops="50%", params="70%"))
    before = settled.plan.before
    assert before.thop_macs > before.macs
    assert [(limit.count, limit.bound) for limit in settled.plan.budget] == [
        ("macs", before.macs // 2),
        ("thop_macs", before.thop_macs // 2),
        ("params", before.params * 70 // 100),
    ]
    assert all(getattr(settled.after, limit.count) <= limit.bound for limit in settled.plan.budget)


def test_absolute_flops_hold_under_both_counts():
    settled = settle(zoo.subject("resnet"), Budget(flops=30_000))
    assert [(limit.count, limit.bound) for limit in settled.plan.budget] == [("macs", 30_000), ("thop_macs", 30_000)]
    assert max(settled.after.macs, settled.after.thop_macs) <= 30_000


def test_what_thop_counts_beyond_every_formula_does_not_break_the_budget(monkeypatch):
    honest = proving.counted

    def counted(subject: Subject, slim: nn.Module) -> Costs:
        costs = honest(subject, slim)
        return replace(costs, thop_macs=costs.thop_macs + 2_000)

    monkeypatch.setattr(proving, "counted", counted)
    settled = settle(zoo.subject("resnet"), Budget(flops="50%"))
    assert settled.failed == ()
    checks = {check.name: check for check in settled.checks}
    assert checks["predicted_thop_macs"].ok is None
    assert checks["predicted_thop_macs"].value == 2_000
    assert checks["budget_thop_macs"].ok is True
    assert settled.after.thop_macs <= settled.plan.budget[1].bound


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "shuffle"])
def test_two_runs_decide_the_same(name):
    first, second = (settle(zoo.subject(name), Budget(flops="70%")).plan for _ in range(2))
    assert first == second


def test_the_module_is_left_in_its_mode_and_the_slim_one_has_it():
    subject = zoo.subject("auxiliary")
    subject.module.train()
    settled = settle(subject, Budget(flops="60%"))
    assert subject.module.training
    assert settled.slim.training
    out, aux = settled.slim(image(2))
    assert (out.shape, aux.shape) == ((2, 5), (2, 5))


def test_several_inputs():
    subject = zoo.subject("two_inputs")
    settled = settle(subject, Budget(flops="60%"))
    assert settled.plan.inputs == ("2x3x16x16", "2x4")
    assert settled.slim(image(3), torch.randn(3, 4)).shape == (3, 5)


def test_nothing_to_prune():
    with pytest.raises(NothingToPrune) as caught:
        settle(zoo.subject("flipped"), Budget(flops="50%"))
    assert "locked because" not in caught.value.message


def test_stages_are_told_and_timed():
    told: list[str] = []
    clock = planning.Clock(lambda stage, *_: told.append(stage))
    subject = zoo.subject("mlp")
    planning.settle(subject, planning.prepare(subject, FREE, clock), Budget(flops="50%"), FREE, clock)
    assert told == ["trace", "digest", "score", "allocate", "surgery", "verify"]
    assert list(clock.seconds) == told


def test_groups_that_only_break_the_proof_together_are_locked_alone(monkeypatch):
    honest = planning.verify.equivalence

    def equivalence(subject, slim, cuts, seed=0):
        names = {cut.group.name for cut in cuts if cut.width < cut.group.full}
        if {"1.conv1", "2.conv1"} <= names:
            return Check("masked_equivalence", False, 1.0, 1e-9)
        return honest(subject, slim, cuts, seed)

    monkeypatch.setattr(planning.verify, "equivalence", equivalence)
    settled = settle(zoo.subject("resnet"), Budget(flops="70%"), UNIFORM)
    assert settled.failed == ()
    assert set(locked_in(settled)) == {"1.conv1", "2.conv1"}


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "googlenet", "squeezenet1_1", "regnet_x_400mf", "shufflenet_v2_x0_5"]
)
def test_real_networks_with_random_weights(name):
    """Some let the signal die, some misread: the proof holds all the same, and the budget is used."""
    torch.manual_seed(0)
    module = torchvision.models.get_model(
        name, weights=None, **({"init_weights": False} if name == "googlenet" else {})
    )
    subject = Subject(module.train(), (torch.randn(1, 3, 32, 32),), name)
    settled = settle(subject, Budget(flops="60%"))
    checks = {check.name: check for check in settled.checks}
    assert settled.failed == ()
    assert checks["masked_equivalence"].ok is True
    assert settled.after == settled.plan.predicted
    assert max(checks[f"budget_{count}"].value for count in ("macs", "thop_macs")) > 0.995
    if name == "googlenet":  # its auxiliary heads run in training only
        outputs = settled.slim(torch.randn(2, 3, 32, 32))
        assert [t.shape for t in outputs] == [(2, 1000)] * 3
