"""Masked reconstruction with a linear head and with MAE's decoder, for tokens of any modality.

Shapes: S packed tokens, L tokens of a sequence, D width, P source values.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from triptych.backbones.encoder import Encoder
from triptych.objectives.objective import Loss, Read, Spec, Step, TokenSpec
from triptych.objectives.reconstruction import Reconstruction, standardised
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.positions import sincos
from triptych.tokenizers.tokens import Tokens, concat

from .helpers import random_tokens, randomise

D, P, LENGTHS = 7, 3, (5, 8)  # the first token of each is a prefix
MASKED = (1, 3, 6, 7, 12)
HIDDEN = (2, 3, 8, 9, 11)


def flags(where: tuple[int, ...]) -> Tensor:
    return torch.zeros(sum(LENGTHS), dtype=torch.bool).index_fill(0, torch.tensor(where), True)


def tokens() -> Tokens:
    made = random_tokens(LENGTHS, D, ("class",))
    return replace(made, source=torch.randn(sum(LENGTHS), P), masked=flags(MASKED))


def objective(**settings: Any) -> Reconstruction:
    made = Reconstruction(**settings)
    made.build(Spec(D, 1, {"train": TokenSpec("any", P, None, ("class",))}, {"any": {}}))
    randomise(made)
    return made


def run(made: Reconstruction, of: Tokens) -> Loss:
    return made(Step({}, {Read("train"): of}))


@pytest.mark.parametrize("distance", ["l1", "mse"])
@pytest.mark.parametrize("of", ["masked", "all"])
def test_linear_head_against_a_loop(distance: str, of: str) -> None:
    made, given = objective(distance=distance, of=of), tokens()
    assert given.source is not None
    errors = []
    for i in range(sum(LENGTHS)):
        if i in (0, LENGTHS[0]) or (of == "masked" and i not in MASKED):
            continue
        told = made.head.weight @ given.values[i] + made.head.bias
        difference = told - given.source[i]
        errors.append(difference.abs().mean() if distance == "l1" else difference.square().mean())
    expected = torch.stack(errors).mean()
    loss = run(made, given)
    torch.testing.assert_close(loss.total, expected)
    assert loss.terms[distance].count == len(errors) * P
    wanted = torch.autograd.grad(expected, list(made.parameters()))
    for found, want in zip(torch.autograd.grad(loss.total, list(made.parameters())), wanted, strict=True):
        torch.testing.assert_close(found, want)


def test_values_that_are_missing_count_for_nothing() -> None:
    made, given = objective(normalise=True), tokens()
    assert given.source is not None
    observed = torch.rand(sum(LENGTHS), P) < 0.7
    loss = run(made, replace(given, observed=observed))
    assert loss.terms["mse"].count == int(observed[list(MASKED)].sum())
    spoilt = given.source.where(observed, torch.tensor(1e6))
    torch.testing.assert_close(run(made, replace(given, source=spoilt, observed=observed)).total, loss.total)


def test_standardised_targets() -> None:
    source = torch.randn(4, P) * 3 + 2
    expected = (source - source.mean(1, keepdim=True)) / (source.var(1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(standardised(source), expected)
    seen = torch.tensor([[True, True, False]]).expand(4, P)
    torch.testing.assert_close(standardised(source, seen)[:, :2], standardised(source[:, :2]))
    assert standardised(torch.full((1, P), 5.0)).abs().max() == 0


def test_nothing_masked_is_a_loss_of_zero() -> None:
    given = replace(tokens(), masked=None)
    assert run(objective(), given).total == 0


def mae(**settings: Any) -> Reconstruction:
    return objective(decoder=Encoder(8, 1, 2, mlp_ratio=2), **settings)


def test_decoder_sees_mask_tokens_where_tokens_were_hidden() -> None:
    """Token by token: what the decoder is given, and that hidden tokens alone are learnt from."""
    made, whole = mae(), replace(tokens(), masked=None)
    part = whole.select(~flags(HIDDEN))
    assert made.decoder is not None and whole.source is not None and part.kept is not None
    given = []
    for i in range(sum(LENGTHS)):
        value = made.mask_token if i in HIDDEN else made.enter(part.values[part.kept.tolist().index(i)])
        given.append(value + sincos(whole.position[i : i + 1], 8)[0])
    decoded = made.decoder(concat([whole.with_values(torch.stack(given))])).layers[-1][0].values
    error = (made.head(decoded) - whole.source)[list(HIDDEN)].square().mean()
    loss = run(made, part)
    torch.testing.assert_close(loss.total, error)
    wanted = torch.autograd.grad(error, list(made.parameters()))
    for found, want in zip(torch.autograd.grad(loss.total, list(made.parameters())), wanted, strict=True):
        torch.testing.assert_close(found, want)


def test_reconstruction_is_whole_and_says_what_was_hidden() -> None:
    made, whole = mae(), replace(tokens(), masked=None)
    found = made.reconstruct(whole.select(~flags(HIDDEN)))
    assert found.lengths == tuple(length - 1 for length in LENGTHS)
    assert found.values.shape == (sum(LENGTHS) - 2, P)
    content = [i for i in range(sum(LENGTHS)) if i not in (0, LENGTHS[0])]
    assert found.masked is not None
    assert found.masked.tolist() == [i in HIDDEN for i in content]


def test_a_decoder_serves_masked_tokens_too() -> None:
    made, given = mae(), tokens()
    assert run(made, given).terms["mse"].count == len(MASKED) * P


def test_hidden_tokens_without_a_decoder() -> None:
    with pytest.raises(UserError, match=r"'train'.*only be told by a decoder"):
        run(objective(), tokens().select(~flags(HIDDEN)))


def test_tokens_without_a_source() -> None:
    with pytest.raises(UserError, match="view 'train' have no source"):
        Reconstruction().build(Spec(D, 1, {"train": TokenSpec("any", None, None, ())}, {"any": {}}))
