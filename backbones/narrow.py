"""Attention of narrow heads over short sequences on the CPU, by plain matrix products.

PatchTST's published sizes have heads of 4 over 42 tokens. There PyTorch's fused kernel takes 1.7 times as
long as the same formula in products that are laid out so that they write along the tokens, not along the 4.

Shapes: n sequences, Lq tokens of each that ask, L that are asked, H heads, K head width, B = n * H.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: Widest head, and fewest and most tokens asked, for which this was measured to be the faster way.
WIDEST, SHORTEST, LONGEST = 8, 12, 128
#: Scores that are worked on at once: about what a processor's cache holds.
BLOCK = 2**18
#: Largest size of a score whose exponential is taken as it is: 128 of them stay far within fp32.
SAFE = 60.0


def is_narrow(q: Tensor, k: Tensor) -> bool:
    """Whether `q` `(n, Lq, H, K)` and `k` `(n, L, H, K)` should go through `attend_narrow`."""
    fits = k.shape[-1] <= WIDEST and SHORTEST <= k.shape[1] <= LONGEST
    return fits and q.device.type == "cpu" and q.dtype == torch.float32


def attend_narrow(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(K)) v, `(n, Lq, H, K)`; keeps the exponentials for the backward pass."""
    heads, width = q.shape[2:]
    q, k, v = (x.permute(0, 2, 3, 1).flatten(0, 1) for x in (q * width**-0.5, k, v))  # (B, K, L)
    v = F.pad(v, (0, 0, 0, 1), value=1.0)  # the row of ones gives what to divide by
    safe = _largest(q) * _largest(k) <= SAFE  # no score is larger than that (Cauchy and Schwarz)
    count = max(1, BLOCK // (q.shape[2] * k.shape[2]))
    blocks = zip(q.split(count), k.split(count), v.split(count), strict=True)
    summed = torch.cat([_summed(*block, safe) for block in blocks])
    attended = summed[:, :width] / summed[:, width:]
    return attended.unflatten(0, (-1, heads)).permute(0, 3, 1, 2)


def _summed(q: Tensor, k: Tensor, v: Tensor, safe: bool) -> Tensor:
    """`v` `(B, K + 1, L)` summed with the exponentials of the scores as weights, `(B, K + 1, Lq)`."""
    scores = torch.bmm(k.mT, q)  # (B, L, Lq)
    if not safe:
        scores = scores - scores.detach().amax(1, keepdim=True)
    return torch.bmm(v, scores.exp_())


def _largest(vectors: Tensor) -> float:
    """The largest length of the vectors along axis 1."""
    return float(vectors.detach().square().sum(1).amax().sqrt())
