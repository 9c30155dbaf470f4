"""The teacher: an average that starts as the student, follows it by its momentum, and is never trained."""

import pytest
import torch
from torch import nn
from triptych.backbones.schedule import Schedule
from triptych.backbones.teacher import Teacher, frozen_copy


class Part(nn.Module):
    """Two parameters and two buffers, one of them whole numbers, as batch norm has."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(self.linear(x)))


def built(momentum: Schedule | float) -> tuple[Teacher, nn.ModuleDict, Part]:
    teacher, tokenizers, encoder = Teacher(momentum), nn.ModuleDict({"image": Part()}), Part()
    teacher.build(tokenizers, encoder)
    return teacher, tokenizers, encoder


def pairs(teacher: Teacher, tokenizers: nn.Module, encoder: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    return [(tokenizers, teacher.tokenizers), (encoder, teacher.encoder)]


def test_starts_as_a_copy_of_its_own() -> None:
    teacher, tokenizers, encoder = built(0.9)
    for student, average in pairs(teacher, tokenizers, encoder):
        for (name, theirs), ours in zip(
            student.state_dict().items(), average.state_dict().values(), strict=True
        ):
            assert torch.equal(theirs, ours) and theirs is not ours, name
            assert theirs.data_ptr() != ours.data_ptr()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_parameters_move_by_the_momentum_and_buffers_are_copied(progress: float) -> None:
    """After k steps towards a student that stands still: student + m^k (start - student)."""
    schedule, steps = Schedule(0.5, 1.0), 3
    momentum = schedule(progress)
    teacher, tokenizers, encoder = built(schedule)
    both = pairs(teacher, tokenizers, encoder)
    start = [parameter.clone() for _, average in both for parameter in average.parameters()]
    for module in (tokenizers, encoder):
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.data = (10 * torch.rand(tensor.shape)).to(tensor.dtype)
    for _ in range(steps):
        teacher.update(both, progress)
    moved = [parameter for _, average in both for parameter in average.parameters()]
    student = [parameter.detach() for module, _ in both for parameter in module.parameters()]
    for was, now, target in zip(start, moved, student, strict=True):
        torch.testing.assert_close(now, target + momentum**steps * (was - target))
    for module, average in both:
        for theirs, ours in zip(module.buffers(), average.buffers(), strict=True):
            assert torch.equal(theirs, ours)


def test_an_update_leaves_no_trace_in_the_graph() -> None:
    teacher, tokenizers, encoder = built(0.9)
    teacher.update(pairs(teacher, tokenizers, encoder), 0.0)
    assert all(p.grad_fn is None and not p.requires_grad for p in teacher.parameters())


def test_copy_student_starts_over() -> None:
    teacher, tokenizers, encoder = built(1.0)
    nn.init.normal_(encoder.linear.weight)
    teacher.update(pairs(teacher, tokenizers, encoder), 0.0)
    assert not torch.equal(teacher.encoder.linear.weight, encoder.linear.weight)  # momentum 1 stands still
    teacher.copy_student(pairs(teacher, tokenizers, encoder))
    assert torch.equal(teacher.encoder.linear.weight, encoder.linear.weight)


def test_pairs_without_parameters_are_fine() -> None:
    Teacher(0.9).update([(nn.Identity(), nn.Identity())], 0.0)


def test_never_trains_even_inside_a_model_that_does() -> None:
    teacher, _, _ = built(0.9)
    model = nn.ModuleDict({"teacher": teacher}).train()
    assert model.training and not any(module.training for module in teacher.modules())
    x = torch.randn(7, 3)
    before = teacher.encoder.norm.running_mean.clone()
    torch.testing.assert_close(teacher.encoder(x), teacher.encoder(x))  # no dropout
    assert torch.equal(teacher.encoder.norm.running_mean, before)


def test_frozen_copy() -> None:
    student = Part().train()
    copy = frozen_copy(student)
    assert student.training and student.linear.weight.requires_grad
    assert not any(module.training for module in copy.modules())
    assert not any(parameter.requires_grad for parameter in copy.parameters())
