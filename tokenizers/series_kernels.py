"""Series -> tokens by fixed kernels at many dilations: for classes told by shapes at any scale.

Shapes: n entries of a view, C channels, T time steps, L tokens of one entry, D width, K = 84 kernels,
Z dilations, Q thresholds, F = 2 Z K (Q + 1) features of one token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import UserError
from .tokenizer import Embedded, Tokenizer
from .view import View

#: Steps of a kernel, of which three weigh 2 and the others -1: there are 84 such kernels.
TAPS = 9
KERNELS = math.comb(TAPS, 3)
#: Most channels that one kernel adds up.
TOGETHER = 9
#: Deviations beyond which a feature tells no more.
LIMIT = 6.0


class SeriesKernels(Tokenizer):
    """L parts of a series, each told by how often and how far fixed kernels rise in it, then a linear map.

    The kernels, their dilations and shares above thresholds are those of MiniRocket (Dempster, Schmidt and
    Webb 2021), on values and on differences as in MultiRocket (Tan et al. 2022); beside the shares stands
    the largest output, as in ROCKET (Dempster et al. 2020). Where they pool a whole series, a token pools
    its part, so that attention sees what came when. Only the linear map and the places are learnt: a few
    dozen series do not teach kernels. Thresholds are quantiles of the first training batch's outputs.
    A missing value (`View.observed` is False, or NaN) enters as zero.

    Args:
        parts: L, tokens of a series of whatever length.
        dilations: Z at most, spread from 1 to where a kernel spans the longest series.
        thresholds: Q, of each kernel and dilation.
        prefix: names of the learnt tokens that each sequence starts with.
    """

    kernels: Tensor
    thresholds: Tensor
    size: Tensor
    settled: Tensor

    def __init__(
        self, parts: int = 8, dilations: int = 8, thresholds: int = 3, prefix: Sequence[str] = ()
    ) -> None:
        super().__init__(prefix)
        self.parts, self.most, self.count = parts, dilations, thresholds

    def setup(self, data: Mapping[str, Any]) -> None:
        """Draw which of the data's `channels` each kernel reads; `context` is the longest series (steps)."""
        self.channels, self.length = len(data["channels"]), self.parts
        self.dilations = dilations(data["context"], self.most)
        banks = 2 * len(self.dilations)
        self.register_buffer("kernels", kernels(banks, self.channels))
        self.register_buffer("thresholds", torch.zeros(banks, self.count, KERNELS, 1))
        self.register_buffer("size", torch.ones(banks, KERNELS, 1))
        self.register_buffer("settled", torch.tensor(False))
        features = banks * KERNELS * (self.count + 1)
        self.norm = nn.BatchNorm1d(features, affine=False)
        self.project = nn.Linear(features, self.width)
        self.places = nn.Parameter(torch.empty(self.parts, self.width).normal_(std=0.02))

    def embed(self, view: View) -> Embedded:
        """Tokens of every entry, packed.

        Raises:
            UserError: the series have another number of channels than the model.
        """
        whole = isinstance(view.data, Tensor)
        entries = [self._inputs(view, index) for index in ([slice(None)] if whole else range(len(view)))]
        if self.training and not self.settled:
            self._settle(entries)
        features = torch.cat([self._features(entry) for entry in entries])
        values = self.project(self.norm(features.flatten(0, 1)).clamp(-LIMIT, LIMIT))
        time = torch.arange(self.parts, device=values.device).repeat(len(view))
        return Embedded(
            values=values,
            lengths=(self.parts,) * len(view),
            position=torch.stack([time, torch.zeros_like(time), torch.zeros_like(time)], dim=1),
            sample=tuple(range(len(view))),
            channel=(0,) * len(view),
        )

    def place(self, embedded: Embedded) -> Tensor:
        """Add each part's place."""
        return embedded.values + self.places[embedded.position[:, 0]].to(embedded.values.dtype)

    def num_tokens(self, shape: Sequence[int]) -> int:
        """Tokens of a series of shape `(C, T)`."""
        return self.parts

    def _inputs(self, view: View, index: int | slice) -> Tensor:
        """`(2, n, C, T)` values and differences of entries of one length."""
        data = view.data[index]
        assert isinstance(data, Tensor)
        observed = torch.isfinite(data)
        if view.observed is not None:
            observed = observed & view.observed[index]
        data, observed = (column.reshape(-1, *column.shape[-2:]) for column in (data, observed))
        if data.shape[1] != self.channels:
            raise UserError(
                f"the model was trained on {self.channels} channels, but a series has {data.shape[1]}"
            )
        values = torch.where(observed, data, 0.0)
        both = observed[..., 1:] & observed[..., :-1]
        steps = torch.where(both, values.diff(dim=-1), 0.0)
        return torch.stack([values, F.pad(steps, (1, 0))])

    def _outputs(self, inputs: Tensor, bank: int) -> Tensor:
        """`(n, K, T)` of one bank: values at each dilation, then differences at each."""
        source, dilation = divmod(bank, len(self.dilations))
        reach = self.dilations[dilation]
        return F.conv1d(inputs[source], self.kernels[bank], dilation=reach, padding=TAPS // 2 * reach)

    @torch.no_grad()
    def _settle(self, entries: Sequence[Tensor]) -> None:
        """Thresholds at quantiles of the outputs, and the outputs' size."""
        level = torch.linspace(0, 1, self.count + 2)[1:-1].tolist()
        for bank in range(len(self.kernels)):
            found = torch.cat([self._outputs(entry, bank).transpose(0, 1).flatten(1) for entry in entries], 1)
            ordered = found.sort(dim=1).values
            place = [round(share * (ordered.shape[1] - 1)) for share in level]
            self.thresholds[bank] = ordered[:, place].T.unsqueeze(2)
            self.size[bank] = found.std(1, keepdim=True).clamp(min=1e-6)
        self.settled.fill_(True)

    @torch.no_grad()
    def _features(self, inputs: Tensor) -> Tensor:
        """`(n, L, F)` shares above each threshold and the largest output of every part."""
        found = []
        for bank in range(len(self.kernels)):
            outputs = self._outputs(inputs, bank)
            for threshold in self.thresholds[bank]:
                found.append(F.adaptive_avg_pool1d((outputs > threshold).to(outputs.dtype), self.parts))
            found.append(F.adaptive_max_pool1d(outputs, self.parts) / self.size[bank])
        return torch.cat(found, dim=1).transpose(1, 2)


def dilations(steps: int, most: int) -> list[int]:
    """At most `most` whole dilations, evenly spread in powers of 2, up to a kernel that spans `steps`."""
    last = math.log2(max((steps - 1) / (TAPS - 1), 1.0))
    return sorted({int(2 ** (last * place / max(most - 1, 1))) for place in range(most)})


def kernels(banks: int, channels: int) -> Tensor:
    """`(banks, K, C, 9)`: every choice of three taps of weight 2, each over channels drawn from a fixed seed.

    How many channels a kernel adds up is 2 to the power of an even draw, as in MiniRocket for many channels.
    """
    weights = torch.full((KERNELS, TAPS), -1.0)
    for row, chosen in zip(weights, combinations(range(TAPS), 3), strict=True):
        row[list(chosen)] = 2.0
    source = torch.Generator().manual_seed(0)
    most = math.log2(min(channels, TOGETHER) + 1)
    count = (2 ** (torch.rand((banks, KERNELS, 1), generator=source) * most)).long().clamp(1, channels)
    order = torch.rand((banks, KERNELS, channels), generator=source).argsort(dim=2)
    return weights[:, None] * (order < count).to(weights.dtype).unsqueeze(3)
