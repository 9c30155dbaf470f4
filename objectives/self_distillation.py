"""Self-distillation with no labels (Caron et al. 2021, DINO).

Shapes: B samples, G global crops, M local crops, D width, V prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.schedule import Schedule, value
from ..backbones.teacher import frozen_copy
from .centring import centring
from .classification import pooled, pooling
from .objective import Loss, Objective, Read, Spec, Step, Term


class SelfDistillation(Objective):
    """The student, shown any crop, predicts what the teacher says of another, global one.

    Args:
        globals: view of large crops (two or more copies); teacher and student read it.
        locals: view of small crops that the student alone reads, or None.
        prototypes: V, the width of the output.
        hidden: width of the head's two hidden layers.
        bottleneck: width of the head's L2-normalised bottleneck.
        batch_norm: batch norm in the head's hidden layers; small data learn with it, not without.
        student_temperature: of the student's softmax.
        teacher_temperature: of the teacher's softmax; DINO warms it up from .04 to .07.
        centre_momentum: share of the old centre kept at each step; None takes Sinkhorn-Knopp (DINOv2)
            in place of a moving centre.
        freeze_last_layer: epochs at the start during which the prototypes do not move.
        pool: prefix token that the head reads, or `mean` for the mean of the patches.
        weight: factor of the loss.
    """

    def __init__(
        self,
        globals: str = "global",
        locals: str | None = "local",
        prototypes: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        batch_norm: bool = False,
        student_temperature: float = 0.1,
        teacher_temperature: Schedule | float = 0.04,
        centre_momentum: float | None = 0.9,
        freeze_last_layer: float = 1.0,
        pool: str = "class",
        weight: float | Schedule = 1.0,
    ) -> None:
        super().__init__(weight)
        self.views = (globals,) if locals is None else (globals, locals)
        self.prototypes, self.hidden, self.bottleneck = prototypes, hidden, bottleneck
        self.batch_norm, self.pool = batch_norm, pool
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.centre_momentum, self.freeze_last_layer = centre_momentum, freeze_last_layer

    def reads(self) -> tuple[Read, ...]:
        """The student's tokens of every view and the teacher's of the global one."""
        students = (pooling(view, self.pool) for view in self.views)
        return (*students, pooling(self.views[0], self.pool, "teacher"))

    def build(self, spec: Spec) -> None:
        """Make the head, its average, and what centres the teacher."""
        self.head = self.make_head(spec)
        self.teacher_head = frozen_copy(self.head)
        self.centring = centring(self.prototypes, self.centre_momentum)

    def make_head(self, spec: Spec) -> PrototypeHead:
        """A head of the shape that the config asks for."""
        return PrototypeHead(spec.width, self.hidden, self.bottleneck, self.prototypes, self.batch_norm)

    def forward(self, step: Step) -> Loss:
        """Cross-entropy between the teacher's and the student's distributions over prototypes."""
        global_view = self.views[0]
        crops = [step.views[view] for view in self.views]
        features = [pooled(step[Read(view)], self.pool, len(step.views[view])) for view in self.views]
        # views are copy-major, so that all crops lie end to end as (crops, B)
        student = self.head(torch.cat(features)).unflatten(0, (-1, crops[0].samples))
        self.teacher_head.train(
            self.training
        )  # batch norm by the batch: the student's averages are not its own
        with torch.no_grad():
            told = pooled(step[Read(global_view, "teacher")], self.pool, len(crops[0]))
            temperature = value(self.teacher_temperature, step.progress)
            teacher = self.centring(self.teacher_head(told), temperature)
            teacher = teacher.unflatten(0, (crops[0].copies, crops[0].samples))
        loss, pairs = distillation(teacher, student / self.student_temperature)
        term = Term(loss, float(pairs * crops[0].samples), scope="batch")
        return Loss({"ce": term}, _watch(teacher, loss, pairs))

    def averaged(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """The head and the teacher's head."""
        return ((self.head, self.teacher_head),)

    def after_backward(self, progress: float, epoch: float) -> None:
        """Keep the prototypes where they are during the first epochs."""
        if epoch < self.freeze_last_layer:
            self.head.prototypes.grad = None


class PrototypeHead(nn.Module):
    """Three layers, an L2-normalised bottleneck, and unit-length prototypes.

    The last layer is DINO's weight-normed one with its gain frozen at 1: the scores are cosines.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (width, hidden):
            norm = [nn.BatchNorm1d(hidden)] if batch_norm else []
            layers += [nn.Linear(inputs, hidden), *norm, nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, D)` -> cosines `(n, V)`."""
        return F.linear(F.normalize(self.mlp(x), dim=-1), F.normalize(self.prototypes, dim=-1))


def distillation(teacher: Tensor, student: Tensor) -> tuple[Tensor, int]:
    """Sum over pairs of `-sum_v p_v log q_v` (Caron et al. 2021, eq. 3), and how many pairs a sample has.

    A pair is a teacher's crop i and a student's crop j other than i; the student's first G crops
    are the teacher's.

    Args:
        teacher: probabilities `(G, B, V)`.
        student: scores over their temperature `(G + M, B, V)`.
    """
    log_q = student.log_softmax(-1)
    crops = len(teacher)
    every = torch.einsum("bv,bv->", teacher.sum(0), log_q.sum(0))
    same = (teacher * log_q[:crops]).sum()
    return same - every, crops * len(student) - crops


@torch.no_grad()
def _watch(teacher: Tensor, loss: Tensor, pairs: int) -> dict[str, Tensor]:
    """Figures that tell a collapse: entropy near ln V is uniform, near 0 with one prototype is constant."""
    entropy = -torch.xlogy(teacher, teacher).sum(-1).mean()
    used = teacher.argmax(-1).unique().numel() / teacher.shape[-1]
    return {
        "teacher_entropy": entropy,
        "kl": loss.detach() / (pairs * teacher.shape[1]) - entropy,
        "prototypes_used": torch.tensor(used),
    }
