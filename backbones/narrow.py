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

#: Widest head, and fewest and most tokens asked, for which this was measured to be the faster way.
WIDEST, SHORTEST, LONGEST = 8, 12, 128
#: Scores that are worked on at once: about what a processor's cache holds.
BLOCK = 2**18
#: Sums of exponentials within which fp32 keeps all that counts, of their products and of gradients over them.
SAFE = (1e-20, 1e20)


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
        q, k, v = _tokens_last(q).mul_(width**-0.5), _tokens_last(k), _tokens_last(v, more=1)
        v[:, width] = 1.0
        keep = any(ctx.needs_input_grad)
        summed, kept = _summed(q, k, v, keep)
        if not SAFE[0] < summed[:, width].min() <= summed[:, width].max() < SAFE[1]:
            summed, kept = _summed(q, k, v, keep, from_largest=True)
        inverse = summed[:, width:].reciprocal()
        attended = summed[:, :width] * inverse
        ctx.heads = heads
        ctx.save_for_backward(q, k, v, attended, inverse, *kept)
        return _heads_last(attended, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """The scores' gradient is E (v^T g - a g); g is the gradient over the sums, a what was attended."""
        q, k, v, attended, inverse, *kept = ctx.saved_tensors
        width = q.shape[1]
        both = _tokens_last(grad, more=1)
        over = both[:, :width].mul_(inverse)
        torch.sum(over * attended, 1, out=both[:, width]).neg_()
        of_q, of_k, of_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(k)
        for part, exponentials in zip(_blocks(q, k), kept, strict=True):
            scores = torch.bmm(v[part].mT, both[part]).mul_(exponentials)  # (b, L, Lq)
            torch.bmm(k[part], scores, out=of_q[part])
            torch.bmm(q[part], scores.mT, out=of_k[part])
            torch.bmm(over[part], exponentials.mT, out=of_v[part])
        of_q.mul_(width**-0.5)
        return tuple(_heads_last(found, ctx.heads) for found in (of_q, of_k, of_v))


def _summed(
    q: Tensor, k: Tensor, v: Tensor, keep: bool, from_largest: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """`v E` `(B, K + 1, Lq)` and, if they are kept, the blocks of E; of scores less the largest, if asked."""
    summed, kept = q.new_empty(len(q), v.shape[1], q.shape[2]), []
    for part in _blocks(q, k):
        scores = torch.bmm(k[part].mT, q[part])  # (b, L, Lq)
        exponentials = (scores - scores.amax(1, keepdim=True) if from_largest else scores).exp_()
        torch.bmm(v[part], exponentials, out=summed[part])
        if keep:
            kept.append(exponentials)
    return summed, kept


def _tokens_last(x: Tensor, more: int = 0) -> Tensor:
    """`(n, L, H, K)` -> `(B, K + more, L)`, a copy; what is in the rows more is not set."""
    n, length, heads, width = x.shape
    found = x.new_empty(n, heads, width + more, length)
    found[:, :, :width] = x.permute(0, 2, 3, 1)
    return found.flatten(0, 1)


def _heads_last(x: Tensor, heads: int) -> Tensor:
    """`(B, K, L)` -> `(n, L, H, K)`, a view."""
    return x.unflatten(0, (-1, heads)).permute(0, 3, 1, 2)


def _blocks(q: Tensor, k: Tensor) -> list[slice]:
    """Which sequences and heads are worked on at once."""
    count = max(1, BLOCK // (q.shape[2] * k.shape[2]))
    return [slice(first, first + count) for first in range(0, len(q), count)]
