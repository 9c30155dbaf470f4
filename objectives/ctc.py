"""Connectionist temporal classification: transcripts without knowing when each letter is said.

Shapes: N utterances, S packed tokens, L tokens of one utterance, U symbols of its transcript, K symbols
of the alphabet, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.schedule import Schedule
from ..tokenizers.errors import UserError
from ..tokenizers.tokens import Tokens
from ..tokenizers.view import View
from .objective import Loss, Predictor, Read, Spec, Step, Term

#: Index of the blank; the alphabet's symbols count from 1.
BLANK = 0


class CTC(Predictor):
    """CTC on one linear head (Graves et al. 2006; wav2vec 2.0's fine-tuning).

    The view's `text` holds a transcript `(U,)` for each utterance, as indices of the data's alphabet from
    1. One that is empty, or longer than the utterance's frames can say, is left out of the loss.

    Args:
        view: the view that carries the transcripts.
        dropout: before the head.
        weight: factor of the loss.
    """

    needs_labels = True

    def __init__(self, view: str = "train", dropout: float = 0.0, weight: float | Schedule = 1.0) -> None:
        super().__init__(weight)
        self.view, self.dropout = view, nn.Dropout(dropout)

    def reads(self) -> tuple[Read, ...]:
        """The student's final tokens."""
        return (Read(self.view),)

    def build(self, spec: Spec) -> None:
        """Make the head for the blank and the data's alphabet.

        Raises:
            UserError: the data has no transcripts.
        """
        alphabet = spec.facts(self.view).get("alphabet")
        if not alphabet:
            raise UserError("CTC needs transcripts: data.path must be a manifest with a column `text`")
        self.head = nn.Linear(spec.width, 1 + len(alphabet))

    def forward(self, step: Step) -> Loss:
        """Nats a symbol; in evaluation also the symbol error rate of greedy decoding.

        Raises:
            UserError: the view has no transcripts.
        """
        view = step.views[self.view]
        return self.loss(self.predict(step[Read(self.view)], view), view)

    def loss(self, emissions: Sequence[Tensor], view: View) -> Loss:
        """The loss of emissions `(L, 1 + K)` of each utterance of a view; see `forward`."""
        if "text" not in view.ragged:
            raise UserError(
                f"CTC needs a transcript for each sample of the view {self.view!r}; data.segment must be null"
            )
        texts = view.ragged["text"]
        said = [i for i, text in enumerate(texts) if len(text) and fewest_frames(text) <= len(emissions[i])]
        kept = [emissions[i] for i in said], [texts[i] for i in said]
        total = ctc_loss(*kept).sum() if said else torch.cat(list(emissions)).sum() * 0.0
        metrics: dict[str, Tensor | Term] = {"left_out": total.new_tensor(1 - len(said) / len(texts))}
        if said and not self.training:
            wrong = [edits(greedy(frames), text.tolist()) for frames, text in zip(*kept, strict=True)]
            metrics["symbol_error_rate"] = Term(total.new_tensor(sum(wrong)), sum(map(len, kept[1])))
        return Loss({"ctc": Term(total, symbols(view))}, metrics)

    def counts(self, batch: Mapping[str, View]) -> dict[str, float]:
        """Symbols of the transcripts."""
        return {"ctc": symbols(batch[self.view])}

    def predict(self, tokens: Tokens, view: View) -> list[Tensor]:
        """Log-probabilities `(L, 1 + K)` of each utterance, the blank first."""
        content = tokens.content()
        return list(content.per_sequence(self.head(self.dropout(content.values)).log_softmax(-1)))


def ctc_loss(emissions: Sequence[Tensor], texts: Sequence[Tensor]) -> Tensor:
    """`-log p(text | emissions)` of each utterance, `(N,)`, in nats.

    p sums over all paths of one symbol a frame that become the text when repeated symbols, and then
    blanks, are taken out (Graves et al. 2006, eq. 3 to 8).

    Args:
        emissions: log-probabilities `(L, 1 + K)` of each utterance, the blank first.
        texts: `(U,)` of each; none may be longer than its frames can say.
    """
    lengths = torch.tensor([len(frames) for frames in emissions])
    padded = nn.utils.rnn.pad_sequence(list(emissions))  # torch reads no frame beyond the lengths given
    sizes = torch.tensor([len(text) for text in texts])
    return F.ctc_loss(padded, torch.cat(list(texts)), lengths, sizes, blank=BLANK, reduction="none")


def symbols(view: View) -> int:
    """Symbols of all the transcripts of a view, those that are left out included."""
    return sum(len(text) for text in view.ragged.get("text", ()))


def fewest_frames(text: Tensor) -> int:
    """Frames that a text `(U,)` needs: one a symbol, and a blank between two that are equal."""
    return len(text) + int((text[1:] == text[:-1]).sum())


def greedy(emissions: Tensor) -> list[int]:
    """The symbols of the likeliest path through `(L, 1 + K)`: repeats joined, blanks dropped."""
    path = emissions.argmax(-1).unique_consecutive()
    return [symbol for symbol in path.tolist() if symbol != BLANK]


def edits(one: Sequence[int], other: Sequence[int]) -> int:
    """Insertions, deletions and substitutions from one sequence to the other (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for i, symbol in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, wanted in enumerate(other, start=1):
            diagonal, row[j] = row[j], min(diagonal + (symbol != wanted), row[j] + 1, row[j - 1] + 1)
    return row[-1]
