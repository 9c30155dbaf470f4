"""How a run is optimised: AdamW, its schedules, and which parameters learn slower, later or never."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from ..backbones.schedule import Schedule, value
from ..tokenizers.errors import UserError
from .model import Model

#: A parameter's name in the model, and the parameter.
Named = tuple[str, nn.Parameter]


@dataclass
class Optimization:
    """AdamW (Loshchilov and Hutter 2019) and its schedules over the run.

    Attributes:
        lr: learning rate.
        weight_decay: on matrices; biases, norms and single vectors have none.
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
        layer_decay: factor of the learning rate from one block of the encoder to the one before
            it (Clark et al. 2020, ELECTRA); heads learn at the full rate, tokenizers slowest.
        freeze: by pattern of parameter names (`tokenizers.*`, `encoder.blocks.0.*`), the share of
            the run (0 to 1) for which those that match do not learn; 1 is for good. None freezes nothing,
            also what a config below froze.
    """

    lr: Schedule | float = field(default_factory=lambda: Schedule(1e-3, 1e-6, warmup=0.1))
    weight_decay: Schedule | float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    layer_decay: float = 1.0
    freeze: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"expected layer_decay above 0 and at most 1, but got {self.layer_decay:g}")

    def optimizer(self, model: Model, fused: bool = True) -> Optimizer:
        """AdamW with a group for each (decays, factor of the learning rate).

        Args:
            model: all that may learn.
            fused: one kernel for the whole step. Lightning cannot clip its gradients in mixed precision.
        """
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for name, parameter in trained(model):
            factor = self.layer_decay ** (model.encoder.depth + 1 - layer_of(name, model.encoder.depth))
            groups.setdefault((parameter.ndim > 1, factor), []).append(parameter)
        options: list[dict[str, Any]] = [
            {"params": group, "decays": decays, "factor": factor, "weight_decay": 0.0}
            for (decays, factor), group in sorted(groups.items(), reverse=True, key=lambda item: item[0])
        ]
        return AdamW(options, lr=1e-3, betas=self.betas, eps=self.eps, fused=fused)

    def follow(self, optimizer: Optimizer, progress: float) -> None:
        """Set every group's learning rate and weight decay for this share of the run."""
        for group in optimizer.param_groups:
            group["lr"] = value(self.lr, progress) * group["factor"]
            if group["decays"]:
                group["weight_decay"] = value(self.weight_decay, progress)

    def freeze_for_good(self, model: Model) -> None:
        """Take what never learns out of the run's gradients.

        Raises:
            UserError: a pattern of `freeze` matches no parameter.
        """
        names = [name for name, _ in trained(model)]
        for pattern in self.freeze or ():
            if not any(fnmatchcase(name, pattern) for name in names):
                stems = sorted({re.sub(r"\.\d+\..*", ".*", name) for name in names})
                raise UserError(f"{pattern!r} in `freeze` must match a parameter, such as one of {stems}")
        for name, parameter in trained(model):
            parameter.requires_grad_(self._frozen_until(name) < 1.0)

    def clear_frozen(self, model: Model, progress: float) -> None:
        """Drop the gradients of what is frozen now: the optimiser passes by parameters without one."""
        for name, parameter in trained(model) if self.freeze else ():
            if progress < self._frozen_until(name):
                parameter.grad = None

    def _frozen_until(self, name: str) -> float:
        return max(
            (until for pattern, until in (self.freeze or {}).items() if fnmatchcase(name, pattern)),
            default=0.0,
        )


def trained(model: Model) -> Iterable[Named]:
    """Every parameter that asks for gradients, with its name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def layer_of(name: str, depth: int) -> int:
    """Place of a parameter on the way up: 0 for tokenizers, i for block i, `depth + 1` for all above."""
    if name.startswith("tokenizers."):
        return 0
    block = re.match(r"encoder\.blocks\.(\d+)\.", name)
    return int(block[1]) + 1 if block else depth + 1
