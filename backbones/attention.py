"""One attention for every device: `attend`.

Three backends give the same numbers: xformers' memory-efficient kernel with a block-diagonal mask
(CUDA), PyTorch's scaled dot product over sequences grouped by equal length (anywhere), and a naive
one to be read and to test against. xformers is touched in this file only, and only two names of it.

Shapes: N sequences, S packed tokens, L tokens of one sequence, H heads, K head width, D width.
"""

from __future__ import annotations

import os
import warnings
from functools import cache, lru_cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..tokenizers.errors import UserError
from .layout import Bias, Layout
from .narrow import attend_narrow, is_narrow
from .relative import Gate

Backend = Literal["xformers", "sdpa", "naive"]

ENVIRONMENT = "TRIPTYCH_ATTENTION"


@cache
def _xformers() -> Any | None:
    """The module with the two names we use, or None. Imported without its start-up warning."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import logging

            logging.getLogger("xformers").setLevel(logging.ERROR)
            from xformers.ops import fmha
    except ImportError:
        return None
    return fmha


def choose_backend(device: torch.device | str, forced: str | None = None) -> Backend:
    """The backend for `device`: `forced`, else the environment's, else the best there is.

    Raises:
        UserError: an unknown name is forced, or xformers where it cannot run.
    """
    name = forced or os.environ.get(ENVIRONMENT)
    on_cuda = torch.device(device).type == "cuda"
    if not name:
        return "xformers" if on_cuda and _xformers() is not None else "sdpa"
    if name not in get_args(Backend):
        raise UserError(
            f"the attention backend must be one of {', '.join(get_args(Backend))}, but is {name!r}"
        )
    if name == "xformers" and not (on_cuda and _xformers() is not None):
        raise UserError(
            f"the attention backend xformers must be installed and needs CUDA, but runs on {device}"
        )
    return name  # type: ignore[return-value]


def attend(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, bias: Bias | None = None, backend: str | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(K) + bias) v inside each sequence of `layout`, and nowhere else.

    Args:
        q, k, v: `(S, H, K)`; `q` only of the tokens that ask.
        layout: the sequences, the order they run in, and which of their tokens ask.
        bias: additive bias by length, or None; with one, the grouped path serves every device.
        backend: `xformers`, `sdpa` or `naive`; None chooses. Where xformers has no kernel for these
            numbers on this GPU, or there is a bias, the grouped path stands in for it.

    Returns:
        As `q`.
    """
    chosen = choose_backend(q.device, backend)
    if chosen == "naive":
        return _naive(q, k, v, layout, bias)
    if chosen == "xformers" and bias is None and _has_kernel(q):
        return _memory_efficient(q, k, v, layout)
    return _grouped(q, k, v, layout, bias)


def _naive(q: Tensor, k: Tensor, v: Tensor, layout: Layout, bias: Bias | None) -> Tensor:
    """One sequence at a time, straight from the formula."""
    q, k, v = (layout.arrange(tensor) for tensor in (q, k, v))
    asking, asked = q.split(layout.rows), zip(k.split(layout.lengths), v.split(layout.lengths), strict=True)
    outputs = []
    for index, (qi, (ki, vi)) in enumerate(zip(asking, asked, strict=True)):
        scores = torch.einsum("ihk,jhk->hij", qi, ki) / q.shape[-1] ** 0.5
        if bias is not None:
            scores = (scores + bias((index,), len(ki))).view_as(scores)
        outputs.append(torch.einsum("hij,jhk->ihk", scores.softmax(-1), vi))
    return layout.restore(torch.cat(outputs))


def _grouped(q: Tensor, k: Tensor, v: Tensor, layout: Layout, bias: Bias | None) -> Tensor:
    """Sequences of equal length together, by PyTorch's fused kernel unless heads are narrow: no padding."""
    members = iter([group.sequences for group in layout.groups])

    def one_length(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n, length, heads, _ = q.shape
        if bias is None and is_narrow(q, k):
            return attend_narrow(q, k, v)
        added = None
        if bias is not None:
            added = bias(next(members), length).to(q.dtype).expand(n, heads, length, length)
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))  # (n, L, H, K) -> (n, H, L, K)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=added).transpose(1, 2)

    return layout.per_length(one_length, q, k, v)


def _has_kernel(q: Tensor) -> bool:
    """Whether xformers has a kernel: it loads 16 bytes at a time, and its fp32 kernels end with Hopper."""
    if q.shape[-1] * q.element_size() % 16 or q.shape[-1] > 256:
        return False
    if q.dtype == torch.float32:
        return torch.cuda.get_device_capability(q.device) <= (9, 0)
    return q.dtype in (torch.float16, torch.bfloat16)


@lru_cache(maxsize=256)
def block_diagonal(
    lengths: tuple[int, ...], device: torch.device, rows: tuple[int, ...] | None = None
) -> Any:
    """xformers' description of the packing, cached: building it costs a copy to the device.

    `rows` tokens of each sequence ask all of it; None: all ask.

    Made outside inference mode, whose tensors autograd could not save when a later step finds
    them here.
    """
    with torch.inference_mode(False):
        mask = _xformers().BlockDiagonalMask  # type: ignore[union-attr]
        return mask.from_seqlens(list(rows or lengths), list(lengths), device=device)


def _memory_efficient(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    fmha = _xformers()
    mask = block_diagonal(layout.lengths, q.device, layout.rows)
    packed = (layout.arrange(tensor).unsqueeze(0) for tensor in (q, k, v))  # (S, H, K) -> (1, S, H, K)
    return layout.restore(fmha.memory_efficient_attention(*packed, attn_bias=mask).squeeze(0))  # type: ignore[union-attr]


class Attention(nn.Module):
    """Multi-head self-attention over packed tokens (Vaswani et al. 2017), timm's parameter names.

    Args:
        width: D.
        heads: H; must divide `width`.
        qkv_bias: whether the projection to queries, keys and values has a bias.
        rotary: rotates queries and keys by position, or None.
        dropout: on the output projection.
        gated: each token says how much of the bias it takes (WavLM).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        qkv_bias: bool = True,
        rotary: nn.Module | None = None,
        dropout: float = 0.0,
        gated: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide the width ({width}), but is {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.rotary = rotary
        self.proj = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.gate = Gate(width, heads) if gated else None

    def forward(self, x: Tensor, layout: Layout, position: Tensor, bias: Bias | None = None) -> Tensor:
        """`(S, D)` -> `(S, D)`, or the rows that ask; rotary attention alone reads `position` `(S, 3)`."""
        if layout.asking is None:
            q, k, v = self.project(x, position)
        else:
            q, k, v = self._project_asking(x, layout, position)
        return self.drop(self.proj(attend(q, k, v, layout, self._taken(bias, x, layout)).flatten(1)))

    def _taken(self, bias: Bias | None, x: Tensor, layout: Layout) -> Bias | None:
        """The bias as it is, or as the tokens' gates let it through."""
        return bias if bias is None or self.gate is None else self.gate.gated(x, layout, bias)

    def project(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each `(S, H, K)`."""
        q, k, v = self.qkv(x).unflatten(1, (3, self.heads, -1)).unbind(1)
        if self.rotary is not None:
            q, k = self.rotary(q, position), self.rotary(k, position)
        return q, k, v

    def _project_asking(self, x: Tensor, layout: Layout, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the tokens that ask, keys and values of all."""
        width = self.proj.in_features
        weights = self.qkv.weight.split([width, 2 * width])
        biases = (None, None) if self.qkv.bias is None else self.qkv.bias.split([width, 2 * width])
        q = F.linear(layout.ask(x), weights[0], biases[0]).unflatten(1, (self.heads, -1))
        k, v = F.linear(x, weights[1], biases[1]).unflatten(1, (2, self.heads, -1)).unbind(1)
        if self.rotary is not None:
            q, k = self.rotary(q, layout.ask(position)), self.rotary(k, position)
        return q, k, v

    def maps(self, x: Tensor, layout: Layout, position: Tensor, bias: Bias | None = None) -> list[Tensor]:
        """Attention weights of each sequence, `(H, L, L)`; rows sum to one."""
        q, k, _ = (layout.arrange(tensor).split(layout.lengths) for tensor in self.project(x, position))
        scale, taken = q[0].shape[-1] ** -0.5, self._taken(bias, x, layout)
        scores = [torch.einsum("ihk,jhk->hij", qi, ki) * scale for qi, ki in zip(q, k, strict=True)]
        if taken is not None:
            scores = [s + taken((index,), s.shape[-1]).view_as(s) for index, s in enumerate(scores)]
        return [s.softmax(-1) for s in scores]
