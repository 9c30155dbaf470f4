"""The objective of wav2vec 2.0: tell the true frame, quantised or not, from others of the same utterance.

Shapes: S packed tokens, M masked frames of the batch, m masked frames of one utterance, D width,
F features, G codebooks, V codes of each, K width of the space that is compared in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.schedule import Schedule, value
from ..tokenizers.tokens import Tokens
from ..tokenizers.view import View
from .objective import Loss, Objective, Read, Spec, Step, Term
from .quantiser import GumbelQuantiser, Quantised, code_share, perplexity


@dataclass(frozen=True)
class Contrast:
    """The contrastive task over all masked frames of a batch.

    Attributes:
        loss: `(M,)` cross-entropy of each frame.
        right: `(M,)` bool, whether the true frame scored above all its negatives.
        candidates: `(M,)` number of distinct codes to choose from, the true one included.
    """

    loss: Tensor
    right: Tensor
    candidates: Tensor


class MaskedContrastive(Objective):
    """wav2vec 2.0 (Baevski et al. 2020, eq. 2 to 4), with fairseq's scaling of the three terms.

    contrastive: mean over masked frames; diversity: weighted by `diversity`; penalty: the mean
    square of the features, weighted by `penalty`. fairseq sums the first over frames and
    multiplies the other two by their number, which is the same weighting.

    Args:
        quantiser: of the unmasked features at the masked positions; None compares with a linear map of
            the features themselves (BigSSL, Zhang et al. 2021, section 3).
        width: K; 256 for base models, 768 for large ones.
        negatives: distinct frames each true one is told from; all others where there are fewer.
        temperature: of the cosine similarities.
        diversity: weight of the diversity term.
        penalty: weight of the feature penalty.
        view: the masked view.
        weight: factor of all terms.
    """

    def __init__(
        self,
        quantiser: GumbelQuantiser | None = None,
        width: int = 256,
        negatives: int = 100,
        temperature: float = 0.1,
        diversity: float = 0.1,
        penalty: float = 10.0,
        view: str = "train",
        weight: float | Schedule = 1.0,
    ) -> None:
        super().__init__(weight)
        self.quantiser, self.width, self.negatives, self.temperature = (
            quantiser,
            width,
            negatives,
            temperature,
        )
        self.diversity, self.penalty, self.view = diversity, penalty, view

    def reads(self) -> tuple[Read, ...]:
        """The student's final tokens."""
        return (Read(self.view),)

    def build(self, spec: Spec) -> None:
        """Make the quantiser and the two projections."""
        feature_dim = spec.views[self.view].feature_dim
        if feature_dim is None:
            raise ValueError(f"the tokenizer of the view {self.view!r} gives no features to be quantised")
        if self.quantiser is not None:
            self.quantiser.build(feature_dim)
            feature_dim = self.quantiser.width
        self.project_target = nn.Linear(feature_dim, self.width)
        self.project_context = nn.Linear(spec.width, self.width)

    def forward(self, step: Step) -> Loss:
        """The three terms, and what they are read by.

        In evaluation mode nothing is drawn but the negatives.
        """
        tokens = step[Read(self.view)].content()
        return self.loss(tokens, *self.contrast(tokens, step.progress))

    def loss(self, tokens: Tokens, contrast: Contrast, quantised: Quantised | None) -> Loss:
        """The terms of a contrast over content tokens; without a quantiser there is no diversity."""
        frames = len(contrast.loss)
        terms = {"contrastive": Term(contrast.loss.sum(), frames)}
        if self.diversity and quantised is not None:
            terms["diversity"] = Term(diversity(quantised.share), min(frames, 1), self.diversity, "batch")
        if self.penalty and tokens.energy is not None:
            terms["penalty"] = Term(tokens.energy.sum(), len(tokens.energy), self.penalty)
        return Loss(terms, self._metrics(contrast, quantised, frames / len(tokens.values)) if frames else {})

    def counts(self, batch: Mapping[str, View]) -> dict[str, float]:
        """The masked frames, and all frames."""
        masked = batch[self.view].masked
        assert masked is not None
        return {"contrastive": int(masked.sum()), "penalty": len(masked)}

    def contrast(self, tokens: Tokens, progress: float = 0.0) -> tuple[Contrast, Quantised | None]:
        """The task over all masked frames of content tokens, in their order, and the frames quantised."""
        assert tokens.masked is not None and tokens.features is not None
        features = tokens.features[tokens.masked]
        quantised = self.quantise(features, progress)
        if quantised is None:  # every frame is its own kind
            return self.compare(tokens, features, torch.arange(len(features)).unsqueeze(1)), None
        return self.compare(tokens, quantised.vectors, quantised.codes), quantised

    def quantise(self, features: Tensor, progress: float = 0.0) -> Quantised | None:
        """Frames `(m, F)` by the quantiser at its temperature of the moment; None without one."""
        if self.quantiser is None:
            return None
        return self.quantiser(features, value(self.quantiser.temperature, progress))

    def compare(self, tokens: Tokens, targets: Tensor, codes: Tensor) -> Contrast:
        """The task over all masked frames of content tokens.

        Args:
            tokens: with their mask.
            targets: `(M, ...)` what the masked frames are, before the projection to K.
            codes: `(M, G)`; frames of the same codes are not told from each other.
        """
        assert tokens.masked is not None
        counts = [int(part.sum()) for part in tokens.masked.cpu().split(tokens.lengths)]
        context = F.normalize(self.project_context(tokens.values[tokens.masked]), dim=-1).split(counts)
        target = F.normalize(self.project_target(targets), dim=-1).split(counts)
        parts = [
            utterance(c, q, code, choose(len(code), self.negatives, c.device), self.temperature)
            for c, q, code in zip(context, target, codes.to(targets.device).split(counts), strict=True)
        ]
        loss, right, candidates = (torch.cat(column) for column in zip(*parts, strict=True))
        return Contrast(loss, right, candidates)

    def _metrics(self, contrast: Contrast, quantised: Quantised | None, masked: float) -> dict[str, Tensor]:
        metrics = {
            "accuracy": contrast.right.float().mean(),
            "chance": contrast.candidates.float().reciprocal().mean(),
            "masked": contrast.loss.new_tensor(masked),
        }
        if quantised is None:
            return metrics
        groups, codes = quantised.share.shape
        used = perplexity(code_share(quantised.codes, codes)).sum()
        return {
            **metrics,
            "code_perplexity": used,
            "code_share": used / (groups * codes),
            "prob_perplexity": perplexity(quantised.share.detach()).sum(),
        }


def choose(count: int, negatives: int, device: torch.device) -> Tensor:
    """For each of m frames, `negatives` distinct others of the same utterance, uniformly.

    Drawn from torch's global generator; nothing is drawn where all others are taken.

    Returns:
        `(m, m)` bool, row i the negatives of frame i.
    """
    others = ~torch.eye(count, dtype=torch.bool, device=device)
    if count - 1 <= negatives:
        return others
    order = torch.rand(count, count, device=device).masked_fill(~others, 2.0)  # itself comes last
    return torch.zeros_like(others).scatter(1, order.topk(negatives, largest=False).indices, True)


def utterance(
    context: Tensor, target: Tensor, codes: Tensor, negatives: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """InfoNCE over the masked frames of one utterance (eq. 3 of the paper).

    `-log(exp(s_ii) / (exp(s_ii) + sum over negatives j of exp(s_ij)))` with s the cosine over
    `temperature`. Negatives of the very code of the true frame are left out.

    Args:
        context, target: `(m, K)` of unit length.
        codes: `(m, G)`.
        negatives: `(m, m)` bool.
        temperature: divides the cosines.

    Returns:
        Loss, whether the true frame won, and the number of distinct candidates, each `(m,)`.
    """
    # compared by code, for equal codes need not give vectors equal to the last bit
    _, identity = codes.unique(dim=0, return_inverse=True)
    same = identity.unsqueeze(1) == identity.unsqueeze(0)
    candidates = negatives & ~same
    own = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    scores = (context @ target.T / temperature).masked_fill(~(candidates | own), -torch.inf)
    true = scores.diagonal()
    loss = scores.logsumexp(1) - true
    right = (scores.masked_fill(own, -torch.inf) < true.unsqueeze(1)).all(1)
    kinds = F.one_hot(identity).float() if len(codes) else codes.float()
    return loss, right & candidates.any(1), 1 + (candidates.float() @ kinds > 0).sum(1)


def diversity(share: Tensor) -> Tensor:
    """`1 - sum_g exp(H(share_g)) / (G V)`: zero when all codes are equally likely.

    fairseq's form of eq. 4 of the paper, on the mean probabilities `(G, V)` of the batch.
    """
    return 1 - perplexity(share).sum() / share.numel()
