"""Windows of a series as tokens (PatchTST, Nie et al. 2023).

Shapes: n entries of a view, C channels, T time steps, N sequences (n * C), L windows of one
sequence, S packed tokens, P steps of a window, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import UserError
from .positions import sincos
from .tokenizer import Embedded, Tokenizer
from .tokens import Stats
from .view import View

#: A series whose deviation is below this share of its mean's size is taken for constant (fp32).
CONSTANT = 1e-6
#: What `floored` adds to the variance.
FLOOR = 1e-5
#: Deviation of learned positions at the start.
POSITION_STD = 0.02


class SeriesWindows(Tokenizer):
    """Each window of each channel becomes one token: a linear map of its values and their mask.

    A series of C channels is C sequences that share a sample. Where the data has covariates, they are
    the last channels; they keep their scale, and each has a learnt vector of its own. Each other
    sequence is normalised by its own observed values, so that it never meets another sequence or the
    future. Missing values (where `View.observed` is False, or NaN) enter as zero with a zero in the
    mask. Entries of different lengths come as a list of `(C, T_i)` in which missing values are NaN.

    Args:
        patch: steps of a window (PatchTST: 16).
        stride: steps between windows (PatchTST: 8).
        end: `repeat` appends `stride` copies of the last value (PatchTST's padding), so that the
            last window reaches past the end; `align` lets the last window end with the series
            and leaves out the oldest remainder.
        normalise: `instance` takes each sequence's mean away and divides by its deviation; `floored`
            does so after 1e-5 was added to the variance (Hugging Face's PatchTST); `last` takes its
            last observed value away; `none` leaves it in the units of the data.
        level: whether each window also reads what was taken away, in the units of the data.
        known: whether every series that was trained on adds a learned vector of its own. Others,
            and views without the target `name`, go without.
        positions: `learned`, `sincos`, or `none` (for rotary attention). They count back from
            the end of the series, so that the latest window keeps its position in a shorter
            context; in a context longer than in training, the oldest learned one is repeated.
        prefix: names of the learnt tokens that each sequence starts with.
    """

    def __init__(
        self,
        patch: int = 16,
        stride: int = 8,
        end: Literal["repeat", "align"] = "repeat",
        normalise: Literal["instance", "floored", "last", "none"] = "instance",
        level: bool = False,
        known: bool = False,
        positions: Literal["learned", "sincos", "none"] = "learned",
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(prefix)
        if not 1 <= stride <= patch:
            raise UserError(
                f"the stride of windows must lie between 1 and their length {patch}, but is {stride}"
            )
        self.patch, self.stride, self.end = patch, stride, end
        self.normalise, self.level, self.known, self.positions = normalise, level, known, positions
        self.source_dim = patch

    def setup(self, data: Mapping[str, Any]) -> None:
        """Make the linear map, and learned positions for the data's `context` (steps)."""
        self.length = self.num_tokens((1, data["context"]))
        self.covariates = len(data.get("covariates", ()))
        if self.covariates:
            self.role = nn.Parameter(torch.zeros(self.covariates, self.width))
        self.project = nn.Linear(2 * self.patch + 2 * self.level, self.width)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        if self.positions == "learned":
            self.position = nn.Parameter(torch.empty(self.length, self.width).normal_(std=POSITION_STD))
        if self.known:
            self.names = nn.Parameter(torch.empty(len(data["names"]), self.width).normal_(std=POSITION_STD))

    def embed(self, view: View) -> Embedded:
        """Windows of every sequence, packed.

        Raises:
            UserError: a series is shorter than one window.
        """
        parts = [self._windows(*part) for part in _equal_lengths(view)]
        seen, source, observed = (
            torch.cat([windows.flatten(0, 1) for windows in column])
            for column in zip(*((part.seen, part.source, part.observed) for part in parts), strict=True)
        )
        lengths = tuple(part.seen.shape[1] for part in parts for _ in range(len(part.seen)))
        time = torch.cat([torch.arange(part.seen.shape[1]).repeat(len(part.seen)) for part in parts])
        time = time.to(seen.device)
        channels = [len(entry) for entry in view.data]
        stats = Stats(torch.cat([p.stats.mean for p in parts]), torch.cat([p.stats.scale for p in parts]))
        inputs = [seen, observed.to(seen.dtype)]
        if self.level:  # on a scale on which a series of any size stays small
            level = torch.cat([stats.mean.asinh(), stats.scale.log()], dim=1)
            inputs.append(level.repeat_interleave(torch.tensor(lengths, device=level.device), dim=0))
        values = self.project(torch.cat(inputs, dim=1))
        if self.covariates:
            values = values + self._roles(channels, lengths).to(values.dtype)
        name = view.targets.get("name") if self.known else None
        return Embedded(
            values=values,
            lengths=lengths,
            position=torch.stack([time, torch.zeros_like(time), torch.zeros_like(time)], dim=1),
            sample=tuple(entry for entry, count in enumerate(channels) for _ in range(count)),
            channel=tuple(channel for count in channels for channel in range(count)),
            source=source,
            observed=observed,
            stats=stats,
            name=None if name is None else F.pad(name, (0, self.covariates), value=-1).flatten(),
        )

    def place(self, embedded: Embedded) -> Tensor:
        """Add positions counted back from the end of each sequence, and the vectors of known ones."""
        values, lengths = embedded.values, embedded.lengths
        if embedded.name is not None:
            names = embedded.name
            vectors = torch.where(names.unsqueeze(1) < 0, 0.0, self.names[names.clamp(min=0)])
            values = values + vectors[_owners(lengths, values.device)]
        if self.positions == "none":
            return values
        if self.positions == "learned" and len(set(lengths)) == 1 and lengths[0] <= len(self.position):
            return (values.unflatten(0, (-1, lengths[0])) + self.position[-lengths[0] :]).flatten(0, 1)
        last = torch.tensor(lengths, device=values.device)[_owners(lengths, values.device)] - 1
        age = last - embedded.position[:, 0]
        if self.positions == "sincos":
            return values + sincos(F.pad(age.unsqueeze(1), (0, 2)), self.width).to(values.dtype)
        return values + self.position[(len(self.position) - 1 - age).clamp(min=0)]

    def num_tokens(self, shape: Sequence[int]) -> int:
        """Windows in all channels of a series of shape `(C, T)`."""
        channels, steps = shape[-2:]
        if steps < self.patch:
            raise UserError(
                f"a series must be at least one window of {self.patch} steps long, but is {steps}: "
                "read more steps (data.context), or take shorter windows (patch and stride of the tokenizer)"
            )
        padding = self.stride if self.end == "repeat" else 0
        return channels * ((steps + padding - self.patch) // self.stride + 1)

    def _roles(self, channels: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """`(S, D)` a vector a covariate, which are the last channels of every entry; 0 for other channels."""
        kind = [max(0, c + 1 - count + self.covariates) for count in channels for c in range(count)]
        owner = torch.tensor(kind).repeat_interleave(torch.tensor(lengths)).to(self.role.device)
        return torch.cat([torch.zeros_like(self.role[:1]), self.role])[owner]

    def _windows(self, data: Tensor, clean: Tensor, observed: Tensor, channels: int) -> _Windows:
        """Normalised windows of sequences of one length, `(N, T)` all three; covariates stay as they are."""
        stats = STATISTICS[self.normalise](data, observed)
        if self.covariates:
            beside = torch.arange(len(data), device=data.device) % channels >= channels - self.covariates
            kept = ~beside.unsqueeze(1)
            stats = Stats(torch.where(kept, stats.mean, 0.0), torch.where(kept, stats.scale, 1.0))
        seen, source = (torch.where(observed, normalise(column, stats), 0.0) for column in (data, clean))
        return _Windows(self._cut(seen), self._cut(source), self._cut(observed), stats)

    def _cut(self, series: Tensor) -> Tensor:
        """`(N, T)` -> `(N, L, P)`."""
        length = self.num_tokens((1, series.shape[1]))
        if self.end == "repeat":
            series = torch.cat([series, series[:, -1:].expand(-1, self.stride)], dim=1)
        else:
            series = series[:, series.shape[1] - self.patch - (length - 1) * self.stride :]
        return series.unfold(1, self.patch, self.stride)


@dataclass(frozen=True)
class _Windows:
    """Windows of sequences of one length, `(N, L, P)`: what the student sees, clean, observed."""

    seen: Tensor
    source: Tensor
    observed: Tensor
    stats: Stats


def statistics(series: Tensor, observed: Tensor) -> Stats:
    """Mean and deviation `(N, 1)` of the observed values of `series` `(N, T)`.

    A constant series has deviation 1, and one of which nothing is observed mean 0 as well.
    """
    count = observed.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(observed, series, 0.0).sum(1, keepdim=True) / count
    centred = torch.where(observed, series - mean, 0.0)
    scale = (centred.square().sum(1, keepdim=True) / count).sqrt()
    return Stats(mean, torch.where(scale > CONSTANT * mean.abs(), scale, 1.0))


def floored(series: Tensor, observed: Tensor) -> Stats:
    """The same, with `FLOOR` added to the variance instead of a word about constant series."""
    stats = statistics(series, observed)
    centred = torch.where(observed, series - stats.mean, 0.0)
    variance = centred.square().sum(1, keepdim=True) / observed.sum(1, keepdim=True).clamp(min=1)
    return Stats(stats.mean, (variance + FLOOR).sqrt())


def normalise(series: Tensor, stats: Stats) -> Tensor:
    """Instance normalisation (Kim et al. 2022, RevIN without its affine map), `(N, T)` -> `(N, T)`."""
    return (series - stats.mean) / stats.scale


def invert(values: Tensor, stats: Stats) -> Tensor:
    """Undo `normalise` for values `(N, ...)` of the same sequences, such as quantiles `(N, H, Q)`."""
    shape = (-1,) + (1,) * (values.ndim - 1)
    return values * stats.scale.view(shape) + stats.mean.view(shape)


def latest(series: Tensor, observed: Tensor) -> Stats:
    """The last observed value of `series` `(N, T)` as its mean, and deviation 1; both `(N, 1)`."""
    place = torch.arange(1, series.shape[1] + 1, device=series.device)
    last = torch.where(observed, place, 0).argmax(1, keepdim=True)
    value = torch.where(observed, series, 0.0).gather(1, last)
    return Stats(value, torch.ones_like(value))


def unchanged(series: Tensor, observed: Tensor) -> Stats:
    """Mean 0 and deviation 1, `(N, 1)`: nothing is taken away."""
    return Stats(series.new_zeros(len(series), 1), series.new_ones(len(series), 1))


def _owners(lengths: Sequence[int], device: torch.device) -> Tensor:
    """`(S,)` the sequence of each packed token."""
    return torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).to(device)


STATISTICS = {"instance": statistics, "floored": floored, "last": latest, "none": unchanged}


def _equal_lengths(view: View) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Data, clean data and what is observed, each `(N, T)`, and the channels of an entry.

    Once for a tensor, by entry for a list.
    """
    clean = view.data if view.clean is None else view.clean
    for index in range(len(view)) if isinstance(view.data, list) else (slice(None),):
        data, target = view.data[index], clean[index]
        assert isinstance(data, Tensor) and isinstance(target, Tensor)
        observed = torch.isfinite(data) & torch.isfinite(target)
        if view.observed is not None:
            observed = observed & view.observed[index]
        yield data.flatten(0, -2), target.flatten(0, -2), observed.flatten(0, -2), data.shape[-2]
