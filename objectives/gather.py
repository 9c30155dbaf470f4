"""What terms that look across the batch need when the batch is spread over several processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def ranks() -> int:
    """Processes that train together; 1 without distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this process is."""
    return dist.get_rank() if ranks() > 1 else 0


def gather(tensor: Tensor) -> Tensor:
    """`(n, ...)` of every rank, rank after rank, as `(ranks * n, ...)`; gradients flow to all ranks.

    Every rank must hold the same n.
    """
    if ranks() == 1:
        return tensor
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(tensor))


def mean_counts(counts: Mapping[str, float]) -> dict[str, float]:
    """The mean of each count over the ranks, where a rank without it has 0."""
    if ranks() == 1:
        return dict(counts)
    every: list[Any] = [None] * ranks()
    dist.all_gather_object(every, dict(counts))
    names = sorted({name for of_rank in every for name in of_rank})
    return {name: sum(of_rank.get(name, 0.0) for of_rank in every) / len(every) for name in names}


@torch.no_grad()
def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of a tensor over the ranks, without gradients."""
    return _over_ranks(tensor, dist.ReduceOp.SUM)


@torch.no_grad()
def max_over_ranks(tensor: Tensor) -> Tensor:
    """The largest of a tensor's values over the ranks, without gradients."""
    return _over_ranks(tensor, dist.ReduceOp.MAX)


def _over_ranks(tensor: Tensor, operation: Any) -> Tensor:
    if ranks() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total, operation)
    return total
