"""How many directions features use, and how far they spread: what tells a collapse without labels.

Shapes: N samples, Q views of each, D feature width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-7


def rankme(x: Tensor) -> float:
    """RankMe (Garrido et al. 2023, eq. 1): exp of the entropy of the singular values' shares, 1 to min(N, D).

    Args:
        x: `(N, D)`; not centred, so that features that hardly differ from their mean have rank 1.
    """
    return effective_rank(torch.linalg.svdvals(x.double()))


def lidar(x: Tensor, ridge: float = 1e-4) -> float:
    """LiDAR (Thilak et al. 2023, eq. 1 and 2): the rank of what tells samples apart despite their views.

    The effective rank of `W^(-1/2) B W^(-1/2)`, B the covariance of the samples' means and W that within
    the samples plus `ridge` on its diagonal.

    Args:
        x: `(N, Q, D)` features of Q views of each sample.
        ridge: keeps W from being singular.
    """
    x = x.double()
    means = x.mean(1)
    between = (means - means.mean(0)) / len(means) ** 0.5
    within = (x - means[:, None]).flatten(0, 1) / (x.shape[0] * x.shape[1]) ** 0.5
    spread = within.T @ within + ridge * torch.eye(x.shape[2], dtype=x.dtype)
    values, vectors = torch.linalg.eigh(spread)
    whitened = between @ (vectors / values.sqrt()) @ vectors.T
    return effective_rank(torch.linalg.svdvals(whitened).square())


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of values taken as shares (Roy and Vetterli 2007); 1 if one value holds all."""
    share = values / values.sum().clamp(min=1e-30) + EPSILON
    return float(torch.exp(-(share * share.log()).sum()))


def spread(x: Tensor) -> float:
    """Mean deviation of L2-normalised features times sqrt(D): 1 if they fill the sphere, 0 if all are alike.

    As Chen and He 2021 (SimSiam, section 4.1) watch a collapse.

    Args:
        x: `(N, D)`.
    """
    unit = F.normalize(x.double(), dim=1)
    return float(unit.std(0, correction=0).mean() * x.shape[1] ** 0.5)
