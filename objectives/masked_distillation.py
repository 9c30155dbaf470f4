"""Self-distillation of masked patches beside crops (Zhou et al. 2022, iBOT; Oquab et al. 2023, DINOv2).

Shapes: n entries of a view, S packed tokens, m masked patches, D width, V prototypes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..backbones.schedule import Schedule, value
from ..backbones.teacher import frozen_copy
from ..tokenizers.errors import UserError
from ..tokenizers.tokens import Tokens
from .centring import centring
from .objective import Loss, Objective, Read, Spec, Step, Term
from .self_distillation import PrototypeHead, SelfDistillation


class MaskedDistillation(Objective):
    """The student, whose patches are masked, tells what the teacher says of the same patches, seen whole.

    Crops are distilled at the same time, from the same masked views, as in DINO.

    Args:
        crops: DINO's part; its view of large crops must be masked.
        separate: the patches have a head of their own, of the same shape (DINOv2's large models); else they
            share that of the crops (iBOT).
        teacher_temperature: of the teacher's softmax over a patch's prototypes.
        patches: weight of the patches' term beside that of the crops.
        weight: factor of the loss.
    """

    def __init__(
        self,
        crops: SelfDistillation,
        separate: bool = False,
        teacher_temperature: Schedule | float = 0.04,
        patches: float = 1.0,
        weight: float | Schedule = 1.0,
    ) -> None:
        super().__init__(weight)
        self.crops, self.separate, self.patches = crops, separate, patches
        self.teacher_temperature = teacher_temperature
        self.view = crops.views[0]

    def reads(self) -> tuple[Read, ...]:
        """All tokens that the crops read: the student's of every view, the teacher's of the large crops."""
        return tuple(replace(read, prefix=False) for read in self.crops.reads())

    def build(self, spec: Spec) -> None:
        """Make the heads, and what centres the teacher's patches: apart from the crops in any case."""
        self.crops.build(spec)
        self.centring = centring(self.crops.prototypes, self.crops.centre_momentum)
        if self.separate:
            self.head = self.crops.make_head(spec)
            self.teacher_head = frozen_copy(self.head)

    def forward(self, step: Step) -> Loss:
        """The crops' cross-entropy, and that of the masked patches."""
        loss = self.crops(step)
        student, teacher = step[Read(self.view)], step[Read(self.view, "teacher")]
        if student.masked is None:
            raise UserError(f"distilling patches needs a view with a mask, but {self.view!r} has none")
        which = student.masked.nonzero().squeeze(1)
        head, average = self.heads()
        average.train(self.training)  # batch norm by the batch, as for the crops
        size = self.crops.prototypes
        scores = _scores(head, student.values[which], size) / self.crops.student_temperature
        with torch.no_grad():
            temperature = value(self.teacher_temperature, step.progress)
            told = self.centring(_scores(average, teacher.values[which], size), temperature)
        term = masked_distillation(told, scores, masked_share(student)[which])
        terms = {**loss.terms, "patches": Term(term, len(student), self.patches, scope="batch")}
        entropy = -torch.xlogy(told, told).sum(-1).mean() if len(told) else told.new_zeros(())
        return Loss(terms, {**loss.metrics, "patch_entropy": entropy})

    def heads(self) -> tuple[PrototypeHead, nn.Module]:
        """The head that reads patches, and its average."""
        owner = self if self.separate else self.crops
        return owner.head, owner.teacher_head

    def averaged(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """Every head and its average."""
        return (*self.crops.averaged(), *([self.heads()] if self.separate else []))

    def after_backward(self, progress: float, epoch: float) -> None:
        """Keep the prototypes where they are during the first epochs."""
        self.crops.after_backward(progress, epoch)
        if self.separate and epoch < self.crops.freeze_last_layer:
            self.head.prototypes.grad = None


def masked_distillation(teacher: Tensor, student: Tensor, share: Tensor) -> Tensor:
    """Sum over masked patches of `-share sum_v p_v log q_v` (Zhou et al. 2022, eq. 2).

    With shares of 1 / (masked patches of the entry) every entry that has any weighs the same.

    Args:
        teacher: probabilities `(m, V)`.
        student: scores over their temperature `(m, V)`.
        share: `(m,)`.
    """
    return -(share * (teacher * student.log_softmax(-1)).sum(-1)).sum()


def masked_share(tokens: Tokens) -> Tensor:
    """`(S,)`: for each token, one over how many tokens of its sequence are masked (over one if none is)."""
    assert tokens.masked is not None
    lengths = torch.tensor(tokens.lengths, device=tokens.masked.device)
    owner = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    counts = torch.zeros(len(lengths), device=lengths.device).index_add(0, owner, tokens.masked.float())
    return (1 / counts.clamp(min=1))[owner]


def _scores(head: nn.Module, x: Tensor, prototypes: int) -> Tensor:
    """`(m, D)` -> `(m, V)`; batch norm does not take a batch of nothing."""
    return head(x) if len(x) else x.new_zeros(0, prototypes)
