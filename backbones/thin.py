"""Feed-forward of narrow tokens on the CPU, a block of tokens at a time.

At PatchTST's published sizes (width 16, hidden 128) the products are cheap, and what takes time is to write
and read the hidden activations, eight times as many as the tokens hold. Here those of a block stay in the
processor's cache, none are kept, and the backward pass makes them again.

Shapes: S tokens, D width, M hidden width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Widest tokens, and fewest hidden activations, for which this was measured to be the faster way.
WIDEST, FEWEST = 16, 2**22
#: Hidden activations that are worked on at once: about what a processor's cache holds.
BLOCK = 2**18


def is_thin(x: Tensor, hidden: int) -> bool:
    """Whether tokens `x` `(S, D)` should go through `feed_thin` where M is `hidden`."""
    fits = x.shape[1] <= WIDEST and len(x) * hidden >= FEWEST
    exact = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return fits and exact and x.device.type == "cpu"


def feed_thin(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """gelu(x w1^T + b1) w2^T + b2, `(S, D)`; `w1` is `(M, D)`, `w2` `(D, M)`."""
    fed: Tensor = _Thin.apply(x, w1, b1, w2, b2)
    return fed


class _Thin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        """Keeps what it was given."""
        ctx.save_for_backward(x, w1, b1, w2)
        fed = x.new_empty(len(x), len(w2))
        for part in _blocks(x, w1):
            torch.addmm(b2, F.gelu(_hidden(x[part], w1, b1)), w2.T, out=fed[part])
        return fed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """Of all five, each summed over the blocks."""
        x, w1, b1, w2 = ctx.saved_tensors
        of_x, of_w1, of_b1, of_w2 = torch.empty_like(x), *(torch.zeros_like(w) for w in (w1, b1, w2))
        for part in _blocks(x, w1):
            hidden = _hidden(x[part], w1, b1)
            of_w2.addmm_(grad[part].T, F.gelu(hidden))
            of_hidden = torch.ops.aten.gelu_backward(grad[part] @ w2, hidden)
            of_w1.addmm_(of_hidden.T, x[part])
            of_b1.add_(of_hidden.sum(0))
            torch.mm(of_hidden, w1, out=of_x[part])
        return of_x, of_w1, of_b1, of_w2, grad.sum(0)


def _hidden(x: Tensor, w1: Tensor, b1: Tensor) -> Tensor:
    """`(b, M)` before the GELU."""
    return torch.mm(x, w1.T).add_(b1)


def _blocks(x: Tensor, w1: Tensor) -> list[slice]:
    """Which tokens are worked on at once."""
    count = max(1, BLOCK // len(w1))
    return [slice(first, first + count) for first in range(0, len(x), count)]
