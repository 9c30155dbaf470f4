"""Forecasts with quantiles.

Shapes: n entries of a view, C channels, N sequences (n * C), S packed tokens, L windows of one
sequence, F values a token, D width, H horizon (steps), Q quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.schedule import Schedule
from ..tokenizers.errors import UserError
from ..tokenizers.series import invert, normalise
from ..tokenizers.tokens import Stats, Tokens
from ..tokenizers.view import View
from .objective import Loss, Predictor, Read, Spec, Step, Term

#: Largest size of a level in units of the look-back's deviation: a nearly constant look-back has no end.
LEVEL = 30.0
DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Forecasting(Predictor):
    """Quantiles of the next H steps of every sequence, by one linear map of all its tokens (PatchTST).

    The centre is a free output, and each further quantile lies a softplus beyond its neighbour,
    so that quantiles cannot cross. The centre is trained by two terms: as the median, by its
    pinball loss, and as the point forecast, by its squared error; the others by pinball alone.
    Both are taken where `future_observed`, in the sequence's own normalised units. Targets are
    `future` and `future_observed`, both `(n, C, H)`.

    Args:
        view: the view that carries the targets.
        quantiles: levels between 0 and 1, rising, .5 among them.
        skip: whether a linear map of the normalised look-back itself is added to the centre.
        start: `zero`, or `ridge`: the skip begins as the pooled ridge of the train rows, and the head as
            nothing, so that a model that learns no more is that ridge. Needs windows side by side.
        own: whether every series that was trained on has a linear map of its own besides, which
            also reads its level. Others, and views without the target `name`, go without.
        squared: weight of the squared error beside the pinball loss.
        dropout: on the tokens before the head.
        weight: factor of the loss.
    """

    levels: Tensor
    spacing: Tensor

    def __init__(
        self,
        view: str = "train",
        quantiles: Sequence[float] = DECILES,
        skip: bool = True,
        start: Literal["zero", "ridge"] = "zero",
        own: bool = False,
        squared: float = 1.0,
        dropout: float = 0.0,
        weight: float | Schedule = 1.0,
    ) -> None:
        super().__init__(weight)
        levels = list(quantiles)
        if levels != sorted(set(levels)) or 0.5 not in levels or not 0 < levels[0] <= levels[-1] < 1:
            raise UserError(f"quantiles must rise between 0 and 1, with 0.5 among them, but are {levels}")
        self.view, self.quantiles, self.squared = view, tuple(levels), squared
        if start == "ridge" and not skip:
            raise UserError("a start from ridge needs `skip: true`, but it is false")
        self.skip, self.start, self.own = skip, start, own
        self.middle = levels.index(0.5)
        self.dropout = nn.Dropout(dropout)

    def reads(self) -> tuple[Read, ...]:
        """The student's final tokens."""
        return (Read(self.view),)

    def build(self, spec: Spec) -> None:
        """Make the heads for the data's `horizon` (steps) and the tokens of its context.

        Raises:
            UserError: the view holds no series, or the data has no horizon.
        """
        tokens = spec.views[self.view]
        horizon = spec.facts(self.view).get("horizon")
        if tokens.length is None or tokens.source_dim is None or horizon is None:
            raise UserError(f"forecasting needs series with a horizon, but the view {self.view!r} has none")
        self.horizon = int(horizon)
        self.covariates = len(spec.facts(self.view).get("covariates", ()))
        self.head = LatestTokens(tokens.length, spec.width, self.horizon * len(self.quantiles))
        if self.skip:
            self.linear = LatestTokens(tokens.length, tokens.source_dim, self.horizon)
            nn.init.zeros_(self.linear.weight)
        if self.own:
            names = len(spec.facts(self.view)["names"])
            self.maps = OwnMaps(names, tokens.length * tokens.source_dim, self.horizon)
        normal = torch.tensor([NormalDist().inv_cdf(level) for level in self.quantiles])
        self.register_buffer("levels", torch.tensor(self.quantiles), persistent=False)
        self.register_buffer("spacing", normal.diff().expm1().log(), persistent=False)

    @torch.no_grad()
    def begin(self, weight: Tensor) -> None:
        """Start as a linear map of the look-back less its last value: `last + (x - last) weight`.

        The map is the same in any units that are normalised alike, so it also holds after instance
        normalisation: the last value itself gets what is missing to a sum of 1.

        Args:
            weight: `(T, H)`, the oldest step first.

        Raises:
            UserError: windows overlap, or reach past the end.
        """
        seen = self.linear.weight.shape[1]
        if seen > len(weight):
            raise UserError(
                "a start from ridge needs windows side by side (a stride of their length, `end: align`), "
                f"but they hold {seen} values of {len(weight)} steps"
            )
        latest = weight[len(weight) - seen :].clone()
        latest[-1] += 1 - latest.sum(0)
        self.linear.weight.copy_(latest.T)
        self.head.weight.zero_()

    def forward(self, step: Step) -> Loss:
        """Pinball loss and squared error over the observed future; coverage of the outer quantiles beside."""
        tokens, targets = self.without_covariates(step[Read(self.view)]), step.views[self.view].targets
        assert tokens.stats is not None
        observed = targets["future_observed"].flatten(0, 1)
        future = normalise(targets["future"].flatten(0, 1), tokens.stats)
        future = torch.where(observed, future, 0.0)
        quantiles = self.normalised(tokens, step.views[self.view])
        count = int(observed.sum())
        loss = Loss(
            {
                "pinball": Term(pinball(quantiles, future, observed, self.levels), count),
                "squared": Term(squared(quantiles[..., self.middle], future, observed), count, self.squared),
            }
        )
        if count:
            inside = (quantiles[..., 0] <= future) & (future <= quantiles[..., -1])
            loss = replace(loss, metrics={"coverage": (inside & observed).sum() / count})
        return loss

    def normalised(self, tokens: Tokens, view: View) -> Tensor:
        """Quantiles `(N, H, Q)` in the normalised units of each sequence."""
        content = tokens.content()
        outputs = self.head(self.dropout(content.values), content.lengths).unflatten(1, (self.horizon, -1))
        centre = outputs[..., self.middle]
        if self.skip:
            assert content.source is not None
            centre = centre + self.linear(content.source, content.lengths)
        if self.own and "name" in view.targets:
            assert content.source is not None and content.stats is not None
            latest = self.head.latest(content.source, content.lengths)
            centre = centre + self.maps(latest, content.stats, view.targets["name"].flatten())
        return spread(centre, outputs, self.spacing, self.middle)

    def without_covariates(self, tokens: Tokens) -> Tokens:
        """The sequences that are forecast: covariates, the last channels of every sample, are not."""
        if not self.covariates:
            return tokens
        channels = len(tokens) // (max(tokens.sample) + 1)
        return tokens.sequences(
            [i for i, channel in enumerate(tokens.channel) if channel < channels - self.covariates]
        )

    def predict(self, tokens: Tokens, view: View) -> Tensor:
        """Quantiles `(n, C, H, Q)` in the units of the data; that of level .5 is the point forecast."""
        tokens = self.without_covariates(tokens)
        assert tokens.stats is not None
        return invert(self.normalised(tokens, view), tokens.stats).unflatten(0, (len(view), -1))


class OwnMaps(nn.Module):
    """A linear map for each series, of its look-back and its level; all start at zero.

    Instance normalisation takes the level away, and with it how fast a series returns to its mean.
    In the units of the data the map adds `W x + a mean + b`, where x is the look-back less its mean.

    Args:
        names: series that have a map.
        features: steps of the look-back.
        horizon: steps ahead.
    """

    def __init__(self, names: int, features: int, horizon: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(names, horizon, features + 2))

    def forward(self, latest: Tensor, stats: Stats, name: Tensor) -> Tensor:
        """`(N, features)` normalised look-backs of the series `name` `(N,)` -> `(N, H)`, normalised.

        A series of name -1 has no map and gets zeros.
        """
        level = torch.cat([stats.mean / stats.scale, 1 / stats.scale], dim=1)
        features = torch.cat([latest, level.clamp(-LEVEL, LEVEL)], dim=1)
        mapped = torch.einsum("nhf,nf->nh", self.weight[name.clamp(min=0)], features)
        return torch.where(name.unsqueeze(1) >= 0, mapped, 0.0)


class LatestTokens(nn.Module):
    """A linear map of a sequence's latest L tokens, laid end to end (PatchTST's flattened head).

    Weights belong to a place counted from the end of the sequence: a shorter one leaves those of
    the oldest tokens out, a longer one its oldest tokens.

    Args:
        length: L.
        features: F, values a token.
        outputs: values a sequence.
    """

    def __init__(self, length: int, features: int, outputs: int) -> None:
        super().__init__()
        self.length = length
        self.weight = nn.Parameter(torch.empty(outputs, length * features))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.trunc_normal_(self.weight, std=(length * features) ** -0.5)

    def forward(self, values: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """Tokens `(S, F)` of sequences of `lengths` -> `(N, outputs)`."""
        return F.linear(self.latest(values, lengths), self.weight, self.bias)

    def latest(self, values: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """The latest L tokens of each sequence end to end, `(N, L * F)`; zeros before a shorter one."""
        if set(lengths) == {self.length}:
            return values.reshape(len(lengths), -1)
        counts = torch.tensor(lengths)
        owner = torch.arange(len(lengths)).repeat_interleave(counts)
        place = torch.cat([torch.arange(self.length - length, self.length) for length in lengths])
        kept = place >= 0
        index = (owner[kept].to(values.device), place[kept].to(values.device))
        latest = values.new_zeros(len(lengths), self.length, values.shape[1])
        latest = latest.index_put(index, values[kept.to(values.device)])
        return latest.flatten(1)


def spread(centre: Tensor, outputs: Tensor, spacing: Tensor, middle: int) -> Tensor:
    """Quantiles that cannot cross: each lies `softplus(output + spacing)` beyond its inner neighbour.

    Args:
        centre: `(N, H)`, the quantile in the middle.
        outputs: `(N, H, Q)`; the one in the middle is not read.
        spacing: `(Q - 1,)` added between neighbours, so that outputs of 0 give a normal distribution.
        middle: index of the median.

    Returns:
        `(N, H, Q)`, rising along the last axis.
    """
    below = F.softplus(outputs[..., :middle] + spacing[:middle])
    above = F.softplus(outputs[..., middle + 1 :] + spacing[middle:])
    centre = centre.unsqueeze(-1)
    return torch.cat([centre - below.flip(-1).cumsum(-1).flip(-1), centre, centre + above.cumsum(-1)], dim=-1)


def pinball(quantiles: Tensor, future: Tensor, observed: Tensor, levels: Tensor) -> Tensor:
    """`2 / Q sum_q max(q (y - y_q), (q - 1)(y - y_q))`, summed over the observed steps.

    The loss of quantile regression (Koenker and Bassett 1978). The factor 2 makes the term of the
    median the absolute error.

    Args:
        quantiles: `(N, H, Q)` forecasts y_q.
        future: `(N, H)` targets y.
        observed: `(N, H)` bool.
        levels: `(Q,)` levels q.
    """
    error = future.unsqueeze(-1) - quantiles
    loss = 2 * torch.maximum(levels * error, (levels - 1) * error).mean(-1)
    return torch.where(observed, loss, 0.0).sum()


def squared(point: Tensor, future: Tensor, observed: Tensor) -> Tensor:
    """`(y - point)^2` summed over the observed steps; all `(N, H)`."""
    return torch.where(observed, (future - point).square(), 0.0).sum()
