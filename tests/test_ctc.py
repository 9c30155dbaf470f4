"""CTC against a forward algorithm written from the paper, and against all paths of a tiny lattice."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from triptych.objectives.ctc import CTC, ctc_loss, edits, fewest_frames, greedy, symbols
from triptych.objectives.objective import Read, Spec, Step, TokenSpec
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.tokens import Tokens
from triptych.tokenizers.view import View

from .helpers import gradients

WIDTH, ALPHABET = 7, ["a", "b", "c"]


def naive(emissions: Tensor, text: Tensor) -> Tensor:
    """Graves et al. 2006, eq. 5 to 8: alpha over the text with blanks between, in probabilities."""
    p = emissions.exp()
    extended = [0]
    for symbol in text.tolist():
        extended += [symbol, 0]
    alpha = [p[0, 0], p[0, extended[1]]] + [torch.zeros(())] * (len(extended) - 2)
    for t in range(1, len(p)):
        new = []
        for s, symbol in enumerate(extended):
            total = alpha[s] + (alpha[s - 1] if s > 0 else 0)
            if s > 1 and symbol != 0 and symbol != extended[s - 2]:
                total = total + alpha[s - 2]
            new.append(total * p[t, symbol])
        alpha = new
    return -(alpha[-1] + alpha[-2]).log()


def collapse(path: tuple[int, ...]) -> list[int]:
    joined = [s for s, before in zip(path, (None, *path), strict=False) if s != before]
    return [s for s in joined if s]


def utterances() -> tuple[list[Tensor], list[Tensor]]:
    torch.manual_seed(0)
    logits = [torch.randn(length, 4, dtype=torch.double, requires_grad=True) for length in (11, 5, 2, 7)]
    return logits, [torch.tensor(text) for text in ([1, 2, 2, 3], [3], [1, 2], [2, 2, 2])]


def test_loss_and_gradient_are_those_of_the_forward_algorithm() -> None:
    logits, texts = utterances()
    found = ctc_loss([x.log_softmax(-1) for x in logits], texts)
    expected = torch.stack([naive(x.log_softmax(-1), t) for x, t in zip(logits, texts, strict=True)])
    torch.testing.assert_close(found, expected)
    weights = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=torch.double)
    ours = torch.autograd.grad((found * weights).sum(), logits)
    theirs = torch.autograd.grad((expected * weights).sum(), logits)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_loss_sums_over_every_path_that_says_the_text() -> None:
    torch.manual_seed(1)
    emissions, text = torch.randn(5, 4).log_softmax(-1), [2, 2]
    paths = [path for path in product(range(4), repeat=5) if collapse(path) == text]
    total = sum(float(emissions[range(5), path].sum().exp()) for path in map(list, paths))
    assert float(ctc_loss([emissions], [torch.tensor(text)])) == pytest.approx(
        -torch.tensor(total).log().item()
    )


def test_a_uniform_lattice_has_the_closed_form() -> None:
    """One symbol in L uniform frames of K + 1: L (L + 1) / 2 runs of it, each of probability (K + 1)^-L."""
    length, kinds = 6, 4
    emissions = torch.full((length, kinds), 1 / kinds).log()
    expected = -torch.tensor(length * (length + 1) / 2).log() + length * torch.tensor(float(kinds)).log()
    torch.testing.assert_close(ctc_loss([emissions], [torch.tensor([3])])[0], expected)


def test_frames_a_text_needs_edits_and_greedy() -> None:
    assert [fewest_frames(torch.tensor(t)) for t in ([1], [1, 1], [1, 2, 2, 2], [])] == [1, 3, 6, 0]
    assert edits([1, 2, 3], [1, 3, 3]) == 1 and edits([], [1, 2]) == 2 and edits([2, 1, 2], [1]) == 2
    path = torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 0, 1, 2, 0, 0, 2]), 4).float()
    assert greedy(path) == [1, 1, 2, 2]


def tokens(lengths: tuple[int, ...], prefix: tuple[str, ...] = ()) -> Tokens:
    position = torch.cat([torch.arange(-len(prefix), n - len(prefix)) for n in lengths])
    return Tokens(
        torch.randn(sum(lengths), WIDTH), lengths, position.unsqueeze(1).repeat(1, 3),
        tuple(range(len(lengths))), (0,) * len(lengths), prefix,
    )  # fmt: skip


def head() -> CTC:
    torch.manual_seed(2)
    objective = CTC()
    spec = TokenSpec("audio", None, None, ())
    objective.build(Spec(WIDTH, 1, {"train": spec}, {"audio": {"alphabet": ALPHABET}}))
    return objective


def step(texts: list[list[int]], parts: Tokens) -> Step:
    text = [torch.tensor(t, dtype=torch.long) for t in texts]
    view = View("audio", [torch.zeros(1)] * len(texts), ragged={"text": text})
    return Step({"train": view}, {Read("train"): parts})


def test_utterances_without_a_sayable_text_are_left_out_of_loss_and_gradient() -> None:
    objective, packed = head(), tokens((5, 6, 3, 4))
    whole = step([[1, 2], [], [1, 1, 1], [3]], packed)
    loss = objective(whole)
    kept = step([[1, 2], [3]], tokens((5, 4)))
    values = packed.values.split(packed.lengths)
    kept.encoded[Read("train")] = kept[Read("train")].with_values(torch.cat([values[0], values[3]]))
    alone = objective(kept)
    torch.testing.assert_close(loss.terms["ctc"].sum, alone.terms["ctc"].sum)
    assert loss.metrics["left_out"] == 0.5 and loss.terms["ctc"].count == 6
    assert objective.counts(whole.views) == {"ctc": 6.0} and symbols(whole.views["train"]) == 6
    for name, gradient in gradients(objective, lambda: objective(whole).terms["ctc"].sum).items():
        torch.testing.assert_close(
            gradient, gradients(objective, lambda: objective(kept).terms["ctc"].sum)[name]
        )
    nothing = objective(step([[], [1, 1, 1]], tokens((2, 2))))
    assert nothing.total == 0


def test_packed_is_one_by_one_and_a_prefix_is_no_frame() -> None:
    objective = head().eval()
    packed = tokens((6, 4, 5), ("class",))
    texts = [[1, 2], [3], [2, 2]]
    together = objective(step(texts, packed))
    total = 0.0
    for text, values in zip(texts, packed.values.split(packed.lengths), strict=True):
        alone = tokens((len(values) - 1,)).with_values(values[1:])
        total += objective(step([text], alone)).terms["ctc"].sum.item()
    assert together.terms["ctc"].sum.item() == pytest.approx(total, rel=1e-5)
    assert 0 <= together.metrics["symbol_error_rate"].mean <= 3


def test_data_without_transcripts_is_refused() -> None:
    spec = Spec(WIDTH, 1, {"train": TokenSpec("audio", None, None, ())}, {"audio": {"rate": 8000}})
    with pytest.raises(UserError, match="a column `text`"):
        CTC().build(spec)
    bare = Step({"train": View("audio", [torch.zeros(1)])}, {Read("train"): tokens((3,))})
    with pytest.raises(UserError, match=r"data.segment must be null"):
        head()(bare)


def test_it_learns_to_spell() -> None:
    """Frames that hold their letter: after a few steps greedy decoding reads the texts."""
    torch.manual_seed(3)
    objective, letters = head(), torch.randn(4, WIDTH)
    texts = [[1, 2, 3], [3, 3, 1], [2, 1, 2, 1]]
    frames = [torch.cat([letters[[0, s, s]] for s in text]) for text in texts]
    packed = tokens(tuple(map(len, frames))).with_values(torch.cat(frames))
    optimiser = torch.optim.Adam(objective.parameters(), 0.1)
    for _ in range(60):
        optimiser.zero_grad()
        objective(step(texts, packed)).total.backward()
        optimiser.step()
    assert objective.eval()(step(texts, packed)).metrics["symbol_error_rate"].mean == 0
    assert isinstance(objective.head, nn.Linear)
