"""From frames to words: greedy, with a language model, or along a text that is known.

Shapes: L frames of one recording, K symbols of the alphabet, U symbols of a text.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...objectives.ctc import BLANK, fewest_frames
from ...tokenizers.errors import UserError
from .clock import Clock
from .text import encode

SPACE = " "
#: The decoder's own names for the blank and the space between words.
BLANK_NAME, SPACE_NAME = "<blank>", "|"
#: Log-probability of what is not said.
IMPOSSIBLE = -100.0


@dataclass(frozen=True)
class Span:
    """A symbol or a word and where it is said: seconds from the recording's start, and a probability."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """A recording's letters and words in order; spaces are no letters."""

    letters: tuple[Span, ...]
    words: tuple[Span, ...]

    @property
    def text(self) -> str:
        """The words, with single spaces between."""
        return SPACE.join(word.text for word in self.words)

    @property
    def confidence(self) -> float:
        """Geometric mean of the letters' probabilities; 0 where nothing is said."""
        return _mean([letter.confidence for letter in self.letters])


#: Log-probabilities `(L, 1 + K)` -> transcript.
Decoder = Callable[[Tensor], Transcript]


def greedy_decoder(alphabet: Sequence[str], clock: Clock) -> Decoder:
    """The likeliest symbol of each frame, repeats joined."""

    def decode(emissions: Tensor) -> Transcript:
        scores, path = emissions.max(-1)
        return _transcript(path, scores, alphabet, clock)

    return decode


def align(emissions: Tensor, text: str, alphabet: Sequence[str], clock: Clock) -> Transcript:
    """Where a normalised text is said, by torchaudio's forced alignment (Viterbi on CTC's lattice).

    Args:
        emissions: log-probabilities `(L, 1 + K)`.
        text: of at least one symbol.
        alphabet: K symbols.
        clock: of the frames.

    Raises:
        UserError: the text has a character outside the alphabet, or more symbols than the frames can say.
    """
    from torchaudio.functional import forced_align

    symbols = encode(text, alphabet)
    if fewest_frames(symbols) > len(emissions) or not len(symbols):
        needs = f"needs {fewest_frames(symbols)} frames, but the recording has {len(emissions)}"
        raise UserError(f"the text {text!r} {needs if len(symbols) else 'has no letters'}")
    path, scores = forced_align(emissions.unsqueeze(0), symbols.unsqueeze(0), blank=BLANK)
    return _transcript(path[0], scores[0], alphabet, clock)


def beam_decoder(
    alphabet: Sequence[str], clock: Clock, beam: int, model: str | None, weight: float
) -> Decoder:
    """Beam search with or without a language model, by flashlight-text through torchaudio.

    Args:
        alphabet: K symbols.
        clock: of the frames.
        beam: paths kept.
        model: a KenLM model of words as an ARPA file, whose words are the only ones said; or None.
        weight: of the model's log-probabilities.

    Raises:
        UserError: flashlight-text is not installed, or the file is no ARPA file with words in the alphabet.
    """
    try:
        from torchaudio.models.decoder import ctc_decoder
    except (ImportError, RuntimeError):
        raise UserError("beam search needs flashlight-text: pip install 'triptych[beam]'") from None
    names = [SPACE_NAME if symbol == SPACE else symbol for symbol in alphabet]
    extra = [] if SPACE_NAME in names else [SPACE_NAME]
    space = 1 + [*names, *extra].index(SPACE_NAME)
    options: dict[str, Any] = {"beam_size": beam, "blank_token": BLANK_NAME, "sil_token": SPACE_NAME}
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as lexicon:
        if model is not None:
            words = [word for word in arpa_words(Path(model)) if set(word) <= set(alphabet)]
            if not words:
                raise UserError(f"no word of {model!r} is spelt in the alphabet {''.join(alphabet)!r}")
            lexicon.writelines(f"{word} {' '.join(word)} {SPACE_NAME}\n" for word in words)
            lexicon.flush()
            options |= {"lm": model, "lm_weight": weight}
        search = ctc_decoder(None if model is None else lexicon.name, [BLANK_NAME, *names, *extra], **options)

    def decode(emissions: Tensor) -> Transcript:
        padded = torch.nn.functional.pad(emissions, (0, len(extra), 0, 1), value=IMPOSSIBLE)
        padded[-1, space] = 0.0  # the decoder ends a word at a space alone
        found = search(padded.unsqueeze(0))[0]
        if not found:
            return Transcript((), ())
        said = search.idxs_to_tokens(found[0].tokens) if model is None else SPACE.join(found[0].words)
        text = SPACE.join("".join(said).replace(SPACE_NAME, SPACE).split())
        return align(emissions, text, alphabet, clock) if text else Transcript((), ())

    return decode


def arpa_words(path: Path) -> list[str]:
    """The words of an ARPA file's unigrams, without `<s>` and its like.

    Raises:
        UserError: it is not one.
    """
    words: list[str] = []
    inside = False
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("\\"):
                    if inside:
                        return [word for word in words if not word.startswith("<")]
                    inside = line.strip() == "\\1-grams:"
                elif inside and line.strip():
                    words.append(line.split("\t")[1].strip())
    except (UnicodeDecodeError, IndexError):
        pass
    raise UserError(f"expected a KenLM model as an ARPA file, but {str(path)!r} is none")


def _transcript(path: Tensor, scores: Tensor, alphabet: Sequence[str], clock: Clock) -> Transcript:
    """Letters and words of a path `(L,)` of symbols, of log-probabilities `(L,)`."""
    from torchaudio.functional import merge_tokens

    words: list[list[Span]] = [[]]
    for found in merge_tokens(path, scores.exp(), blank=BLANK):
        symbol = alphabet[found.token - 1]
        if symbol == SPACE:
            words.append([])
        else:
            span = Span(symbol, clock.begins(found.start), clock.begins(found.end), float(found.score))
            words[-1].append(span)
    said = [word for word in words if word]
    joined = [
        Span("".join(s.text for s in word), word[0].start, word[-1].end, _mean([s.confidence for s in word]))
        for word in said
    ]
    return Transcript(tuple(span for word in said for span in word), tuple(joined))


def _mean(probabilities: Sequence[float]) -> float:
    """Geometric mean, 0 of none."""
    if not probabilities:
        return 0.0
    return math.exp(sum(math.log(max(p, 1e-30)) for p in probabilities) / len(probabilities))
