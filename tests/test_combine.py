"""Terms, losses, and weighted sums of objectives: values and gradients in closed form."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from triptych.backbones.schedule import Schedule
from triptych.objectives.combine import Combined
from triptych.objectives.objective import Loss, Objective, Read, Spec, Step, Term
from triptych.objectives.reconstruction import Reconstruction
from triptych.tokenizers.view import View


class Constant(Objective):
    """Two terms, `a / 2` and three times `4 a / 5`, of one learnt number a: together 2.9 a."""

    mean = 0.5 + 3 * 0.8

    def __init__(self, start: float, view: str = "train", weight: float | Schedule = 1.0) -> None:
        super().__init__(weight)
        self.a, self.view = nn.Parameter(torch.tensor(start)), view
        self.calls: list[Any] = []

    def reads(self) -> tuple[Read, ...]:
        return (Read(self.view), Read(self.view, layer=0))

    def build(self, spec: Spec) -> None:
        self.calls.append(spec)

    def forward(self, step: Step) -> Loss:
        terms = {"one": Term(self.a, 2), "two": Term(4 * self.a, 5, weight=3.0, scope="batch")}
        return Loss(terms, {"figure": self.a.detach()})

    def averaged(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        return ((self, self),)

    def after_backward(self, progress: float, epoch: float) -> None:
        self.calls.append((progress, epoch))


def step(progress: float = 0.0, views: tuple[str, ...] = ("train",)) -> Step:
    return Step({name: View("rows", torch.zeros(2, 3, 1)) for name in views}, {}, progress)


def test_a_term_is_its_sum_over_its_count() -> None:
    assert Term(torch.tensor(6.0), 4).mean == 1.5


@pytest.mark.parametrize("total", [0.0, 3.0, float("nan")])
def test_a_term_that_counted_nothing_is_zero_with_a_gradient(total: float) -> None:
    a = torch.tensor(total, requires_grad=True)
    mean = Term(a, 0).mean
    mean.backward()
    assert mean == 0 == a.grad


def test_a_losss_total_is_the_weighted_sum_of_its_terms() -> None:
    a, b = torch.tensor(6.0, requires_grad=True), torch.tensor(5.0, requires_grad=True)
    total = Loss({"a": Term(a, 4, weight=2.0), "b": Term(b, 2, weight=torch.tensor(0.5))}).total
    total.backward()
    assert (total, a.grad, b.grad) == (2 * 6 / 4 + 0.5 * 5 / 2, 2 / 4, 0.5 / 2)


def test_terms_of_parts_add_up_to_the_whole() -> None:
    """Why a term is a sum and a count: over parts of a batch, sums and counts add; means do not."""
    values, parts = torch.randn(7), (slice(0, 2), slice(2, 7))
    terms = [Term(values[part].sum(), len(values[part])) for part in parts]
    together = Term(sum(term.sum for term in terms), sum(term.count for term in terms)).mean
    torch.testing.assert_close(together, values.mean())
    assert not torch.isclose(together, sum(term.mean for term in terms) / 2)


def test_fixed_weights() -> None:
    combined = Combined({"x": Constant(2.0, weight=0.5), "y": Constant(3.0)})
    loss = combined(step())
    assert list(loss.terms) == ["x/one", "x/two", "y/one", "y/two"]
    assert loss.terms["x/two"].scope == "batch" and loss.terms["x/two"].count == 5
    assert loss.metrics == {"x/figure": 2.0, "y/figure": 3.0}
    loss.total.backward()
    assert loss.total.item() == pytest.approx(Constant.mean * (0.5 * 2 + 3))
    assert combined["x"].a.grad.item() == pytest.approx(0.5 * Constant.mean)
    assert combined["y"].a.grad.item() == pytest.approx(Constant.mean)


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 1.0), (0.25, 1.5), (1.0, 3.0)])
def test_scheduled_weights(progress: float, factor: float) -> None:
    combined = Combined({"x": Constant(2.0, weight=Schedule(1.0, 3.0, shape="linear"))})
    assert combined(step(progress)).total.item() == pytest.approx(factor * 2 * Constant.mean)


def test_learned_weights() -> None:
    """sum exp(-s) w L + s / 2: the gradient in s is 1 / 2 - exp(-s) w L, in a it is exp(-s) w dL/da."""
    starts, weights, s = {"x": 2.0, "y": 3.0}, {"x": 0.5, "y": 1.0}, torch.tensor([0.7, -0.4])
    members = {name: Constant(starts[name], weight=weights[name]) for name in starts}
    combined = Combined(members, "learned")
    assert combined(step()).total.item() == pytest.approx(Constant.mean * 4)  # they start at s = 0
    combined.log_variance.data.copy_(s)
    loss = combined(step())
    loss.total.backward()
    lost = torch.tensor([weights[name] * starts[name] * Constant.mean for name in starts])
    torch.testing.assert_close(loss.total, ((-s).exp() * lost + s / 2).sum())
    torch.testing.assert_close(combined.log_variance.grad, 0.5 - (-s).exp() * lost)
    for index, (name, member) in enumerate(members.items()):
        torch.testing.assert_close(member.a.grad, (-s[index]).exp() * weights[name] * Constant.mean)
        torch.testing.assert_close(loss.metrics[f"{name}/log_variance"], s[index])


def test_absolute_errors_are_divided_by_a_deviation_not_by_a_variance() -> None:
    """SiT's corrected form, exp(-s / 2) L + s / 2 for L1, which rests where exp(-s / 2) = 1 / L."""
    assert Reconstruction(distance="l1").precision == 0.5 and Reconstruction(distance="mse").precision == 1.0
    member = Constant(5.0)
    member.precision = 0.5
    combined, lost = Combined({"x": member}, "learned"), torch.tensor(5.0 * Constant.mean)
    combined.log_variance.data.fill_(0.3)
    torch.testing.assert_close(combined(step()).total, (-torch.tensor(0.15)).exp() * lost + 0.15)
    combined.log_variance.data.copy_(2 * lost.log()[None])
    loss = combined(step())
    loss.total.backward()
    torch.testing.assert_close(combined.log_variance.grad, torch.zeros(1))
    torch.testing.assert_close(loss.total, 1 + lost.log())


def test_learned_weights_rest_where_each_loss_weighs_one_half() -> None:
    """At the minimum s = ln 2 L, however large the loss."""
    combined = Combined({"x": Constant(0.02), "y": Constant(20.0)}, "learned")
    lost = torch.tensor([0.02, 20.0]) * Constant.mean
    combined.log_variance.data.copy_((2 * lost).log())
    loss = combined(step())
    loss.total.backward()
    torch.testing.assert_close(combined.log_variance.grad, torch.zeros(2))
    torch.testing.assert_close(loss.total, (0.5 + (2 * lost).log() / 2).sum())


def test_reads_are_a_union_without_repetition() -> None:
    combined = Combined({"x": Constant(1.0), "y": Constant(1.0, "other"), "z": Constant(1.0)})
    expected = [Read(view, layer=layer) for view in ("train", "other") for layer in (-1, 0)]
    assert list(combined.reads()) == expected


@pytest.mark.parametrize("weighting", ["fixed", "learned"])
def test_an_objective_whose_view_is_absent_is_left_out(weighting: Any) -> None:
    """It neither counts nor draws on its learnt weight, which stays where it is."""
    combined = Combined({"x": Constant(2.0), "y": Constant(3.0, "other")}, weighting)
    loss = combined(step())
    loss.total.backward()
    assert {name.split("/")[0] for name in loss.terms} == {"x"}
    assert combined["y"].a.grad is None
    if weighting == "learned":
        assert combined.log_variance.grad[1] == 0 != combined.log_variance.grad[0]
    assert {name.split("/")[0] for name in combined(step(views=("train", "other"))).terms} == {"x", "y"}


def test_everything_is_handed_on_to_every_member() -> None:
    combined = Combined({"x": Constant(1.0), "y": Constant(1.0)})
    spec = Spec(5, 2, {}, {})
    combined.build(spec)
    combined.after_backward(0.25, 3.5)
    for name, member in combined:
        assert member is combined[name]
        assert member.calls == [spec, (0.25, 3.5)]
    assert combined.averaged() == ((combined["x"], combined["x"]), (combined["y"], combined["y"]))


def test_a_combined_is_an_objective() -> None:
    """So sums nest: names and weights multiply through."""
    inner = Combined({"x": Constant(2.0, weight=0.5)})
    outer = Combined({"all": inner})
    loss = outer(step())
    assert list(loss.terms) == ["all/x/one", "all/x/two"]
    assert isinstance(loss.total, Tensor)
    assert loss.total.item() == pytest.approx(0.5 * 2 * Constant.mean)
