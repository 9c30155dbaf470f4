"""BEST-RQ's labels: the nearest of many random codes to a random projection of the frame.

Shapes: S frames, P source values of a frame, V codes, K width of a code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RandomQuantiser(nn.Module):
    """Frozen projection and codes (Chiu et al. 2022, section 3.1): label = argmin_v |c_v - l2(A x)|.

    The projection starts by Xavier, the codes are normal and of unit length, and neither ever learns. The
    frames must have mean 0 and deviation 1, else few codes are used.

    Args:
        codes: V.
        width: K.
    """

    projection: Tensor
    codebook: Tensor

    def __init__(self, codes: int = 8192, width: int = 16) -> None:
        super().__init__()
        self.codes, self.width = codes, width

    def build(self, source_dim: int) -> None:
        """Draw projection and codes for frames of P values."""
        projection = torch.empty(source_dim, self.width)
        self.register_buffer("projection", nn.init.xavier_uniform_(projection))
        self.register_buffer("codebook", F.normalize(torch.randn(self.codes, self.width), dim=1))

    @torch.no_grad()
    def forward(self, source: Tensor) -> Tensor:
        """Labels `(S,)` of frames `(S, P)`: at unit length the nearest code is the most parallel one."""
        return (F.normalize(source @ self.projection, dim=1) @ self.codebook.T).argmax(1)
