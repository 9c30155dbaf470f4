"""Series -> tokens by a small stack of convolutions over all channels: for classes told by local shapes.

Shapes: n entries of a view, C channels, T time steps, L tokens of one entry, S packed tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import UserError
from .positions import sincos
from .tokenizer import Embedded, Tokenizer
from .view import View

#: (channels, odd kernel, stride) of each convolution: a token every 4 steps that sees 21.
STEM = ((32, 9, 1), (64, 5, 2), (64, 3, 2))


class SeriesConvolutions(Tokenizer):
    """Convolutions, each with batch norm and GELU, then a linear map (early convolutions, Xiao et al. 2021).

    A series is one sequence, whatever its channels. The convolutions read values, differences and the mask of
    every channel; kernels are near those of FCN (Wang et al. 2017). Differences from one step to the next
    are divided by their own size in each sample and channel, for what tells classes is often small beside the
    level. Missing values (`View.observed` is False, or NaN) enter as zero with a zero in the mask.

    Args:
        convolutions: (channels, odd kernel, stride) of each.
        positions: `sincos`, or `none` (for rotary attention, or where a class does not depend on when).
        prefix: names of the learnt tokens that each sequence starts with.
    """

    def __init__(
        self,
        convolutions: Sequence[tuple[int, int, int]] = STEM,
        positions: Literal["sincos", "none"] = "none",
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(prefix)
        self.convolutions, self.positions = [tuple(layer) for layer in convolutions], positions
        for _, kernel, _ in self.convolutions:
            if kernel % 2 == 0:
                raise UserError(f"the kernels of convolutions must be odd, but one is {kernel}")

    def setup(self, data: Mapping[str, Any]) -> None:
        """Make the convolutions of the data's `channels`; `context` is the longest series (steps)."""
        self.channels = len(data["channels"])
        self.length = self.num_tokens((self.channels, data["context"]))
        layers: list[nn.Module] = []
        width = 3 * self.channels
        for channels, kernel, stride in self.convolutions:
            layers += [nn.Conv1d(width, channels, kernel, stride, kernel // 2, bias=False)]
            layers += [nn.BatchNorm1d(channels), nn.GELU()]
            width = channels
        self.layers = nn.Sequential(*layers)
        self.project = nn.Linear(width, self.width)
        for module in self.layers:
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight)

    def embed(self, view: View) -> Embedded:
        """Tokens of every entry, packed.

        Raises:
            UserError: the series have another number of channels than the model.
        """
        whole = isinstance(view.data, Tensor)
        parts = [self._tokens(view, index) for index in ([slice(None)] if whole else range(len(view)))]
        lengths = tuple(part.shape[1] for part in parts for _ in range(len(part)))
        time = torch.cat([torch.arange(length) for length in lengths]).to(parts[0].device)
        zeros = torch.zeros_like(time)
        return Embedded(
            values=torch.cat([part.flatten(0, 1) for part in parts]),
            lengths=lengths,
            position=torch.stack([time, zeros, zeros], dim=1),
            sample=tuple(range(len(lengths))),
            channel=(0,) * len(lengths),
        )

    def place(self, embedded: Embedded) -> Tensor:
        """Add sine and cosine positions, where they are asked for."""
        if self.positions == "none":
            return embedded.values
        return embedded.values + sincos(embedded.position, self.width).to(embedded.values.dtype)

    def num_tokens(self, shape: Sequence[int]) -> int:
        """Tokens of a series of shape `(C, T)`."""
        length = shape[-1]
        for _, _, stride in self.convolutions:
            length = (length - 1) // stride + 1
        return length

    def _tokens(self, view: View, index: int | slice) -> Tensor:
        """`(n, L, D)` of entries of one length."""
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
        inputs = torch.cat([values, differences(values, observed), observed.to(values.dtype)], dim=1)
        return self.project(self.layers(inputs).transpose(1, 2))


def differences(values: Tensor, observed: Tensor) -> Tensor:
    """From each step to the next, over their root mean square in each channel; zero where either is missing.

    Args:
        values: `(n, C, T)`.
        observed: `(n, C, T)` bool.

    Returns:
        `(n, C, T)`, zero at the first step.
    """
    both = observed[..., 1:] & observed[..., :-1]
    steps = torch.where(both, values.diff(dim=-1), 0.0)
    count = both.sum(-1, keepdim=True).clamp(min=1)
    size = (steps.square().sum(-1, keepdim=True) / count).sqrt()
    return F.pad(steps / torch.where(size > 0, size, 1.0), (1, 0))
