"""The quantiser of wav2vec 2.0: product codebooks, chosen by a straight-through Gumbel softmax.

Shapes: S frames, F features, G codebooks, V codes of each, K width of the quantised vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..backbones.schedule import Schedule


@dataclass(frozen=True)
class Quantised:
    """Codes chosen for S frames.

    Attributes:
        vectors: `(S, K)`, with straight-through gradients in training.
        codes: `(S, G)` index of the code chosen in each codebook.
        share: `(G, V)` mean probability of each code over the frames, without noise.
    """

    vectors: Tensor
    codes: Tensor
    share: Tensor


class GumbelQuantiser(nn.Module):
    """Features -> one code of each of G codebooks (Baevski et al. 2020, section 2 and eq. 1).

    In training the code is drawn: hard in the forward pass, with the gradient of the softmax at
    the current temperature (Jang et al. 2017). In evaluation it is the likeliest one.

    Args:
        groups: G.
        codes: V.
        width: K, shared evenly by the codebooks; must be a multiple of G.
        temperature: of the Gumbel softmax over the run. The paper multiplies it by .999995 an
            update, from 2 down to .5; here it follows a schedule over the share of the run.
    """

    def __init__(
        self, groups: int = 2, codes: int = 320, width: int = 256, temperature: Schedule | float | None = None
    ) -> None:
        super().__init__()
        if width % groups:
            raise ValueError(
                f"the quantiser's width must be a multiple of its {groups} groups, but is {width}"
            )
        self.groups, self.codes, self.width = groups, codes, width
        self.temperature = Schedule(2.0, 0.5) if temperature is None else temperature

    def build(self, feature_dim: int) -> None:
        """Make the weights for features of width F."""
        self.logits = nn.Linear(feature_dim, self.groups * self.codes)
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        self.codebook = nn.Parameter(torch.rand(self.groups, self.codes, self.width // self.groups))

    def forward(self, features: Tensor, temperature: float) -> Quantised:
        """Quantise `(S, F)`."""
        logits = self.logits(features).unflatten(1, (self.groups, self.codes))
        if self.training:
            choice = straight_through(logits, gumbel_noise(logits), temperature)
        else:
            choice = one_hot(logits.argmax(-1), self.codes).to(logits.dtype)
        vectors = torch.einsum("sgv,gvk->sgk", choice, self.codebook).flatten(1)
        return Quantised(vectors, choice.argmax(-1), logits.softmax(-1).mean(0))


def one_hot(codes: Tensor, count: int) -> Tensor:
    """`(...,)` indices -> `(..., count)`."""
    return nn.functional.one_hot(codes, count)


def gumbel_noise(like: Tensor) -> Tensor:
    """Standard Gumbel noise from torch's global generator, `-log(E)` with E exponential of rate 1."""
    return -torch.empty_like(like).exponential_().log()


def straight_through(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """One-hot choices whose gradient is that of `softmax((logits + noise) / temperature)`.

    All `(S, G, V)`. The values are exactly 0 and 1.
    """
    soft = ((logits + noise) / temperature).softmax(-1)
    hard = one_hot(soft.argmax(-1), logits.shape[-1]).to(soft.dtype)
    return hard + (soft - soft.detach())


def perplexity(share: Tensor) -> Tensor:
    """`exp(-sum_v p_v log p_v)` of each codebook: `(G, V)` -> `(G,)`, between 1 and V."""
    return (-(share * (share + 1e-7).log()).sum(-1)).exp()


def code_share(codes: Tensor, count: int) -> Tensor:
    """How often each of `count` codes was chosen: `(S, G)` -> `(G, count)`, rows sum to one."""
    return one_hot(codes, count).float().mean(0)
