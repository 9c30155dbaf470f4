"""Attention of narrow heads over short sequences on the CPU, by plain matrix products.

PatchTST's published sizes have heads of 4 over 42 tokens. There PyTorch's fused kernel takes 1.7 times as
long as the same formula in products that are laid out so that they write along the tokens, not along the 4.

Shapes: n sequences, Lq tokens of each that ask, L that are asked, H heads, K head width, B = n * H.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
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
    attended: Tensor = _Narrow.apply(q, k, v)
    return attended


class _Narrow(torch.autograd.Function):
    """`(n, Lq, H, K)`, `(n, L, H, K)` twice -> `(n, Lq, H, K)`; inside, tokens are the last axis."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """With E = exp(k^T q), `v E` over the sums of its columns, which a row of ones in `v` gives."""
        heads, width = q.shape[2:]
        q, k = _tokens_last(q).mul_(width**-0.5), _tokens_last(k)
        ones, kept = F.pad(_tokens_last(v), (0, 0, 0, 1), value=1.0), []
        safe = width * _largest(q) * _largest(k) <= SAFE  # no score is larger than that
        summed = q.new_empty(len(q), width + 1, q.shape[2])
        for part in _blocks(q, k):
            scores = torch.bmm(k[part].mT, q[part])  # (b, L, Lq)
            exponentials = (scores if safe else scores - scores.amax(1, keepdim=True)).exp_()
            torch.bmm(ones[part], exponentials, out=summed[part])
            if any(ctx.needs_input_grad):
                kept.append(exponentials)
        inverse = summed[:, width:].reciprocal()
        attended = summed[:, :width] * inverse
        ctx.heads = heads
        ctx.save_for_backward(q, k, ones, attended, inverse, *kept)
        return _heads_last(attended, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """The scores' gradient is E (v^T g - a g); g is the gradient over the sums, a what was attended."""
        q, k, ones, attended, inverse, *kept = ctx.saved_tensors
        grad = _tokens_last(grad).mul_(inverse)
        both = torch.cat([grad, -(grad * attended).sum(1, keepdim=True)], dim=1)
        of_q, of_k, of_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(k)
        for part, exponentials in zip(_blocks(q, k), kept, strict=True):
            scores = torch.bmm(ones[part].mT, both[part]).mul_(exponentials)  # (b, L, Lq)
            torch.bmm(k[part], scores, out=of_q[part])
            torch.bmm(q[part], scores.mT, out=of_k[part])
            torch.bmm(grad[part], exponentials.mT, out=of_v[part])
        of_q.mul_(q.shape[1] ** -0.5)
        return tuple(_heads_last(found, ctx.heads) for found in (of_q, of_k, of_v))


def _tokens_last(x: Tensor) -> Tensor:
    """`(n, L, H, K)` -> `(B, K, L)`, a copy."""
    return x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).flatten(0, 1)


def _heads_last(x: Tensor, heads: int) -> Tensor:
    """`(B, K, L)` -> `(n, L, H, K)`, a view."""
    return x.unflatten(0, (-1, heads)).permute(0, 3, 1, 2)


def _blocks(q: Tensor, k: Tensor) -> list[slice]:
    """Which sequences and heads are worked on at once."""
    count = max(1, BLOCK // (q.shape[2] * k.shape[2]))
    return [slice(first, first + count) for first in range(0, len(q), count)]


def _largest(x: Tensor) -> float:
    """The largest size of a value."""
    return float(torch.linalg.vector_norm(x, torch.inf))
