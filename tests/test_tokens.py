"""Tokens against naive loops, and the order inside a tokenizer.

Shapes: N sequences, S packed tokens, D width, P source values.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.tokens import Stats, Tokens, concat
from triptych.tokenizers.view import View

from .helpers import Rows, random_tokens

WIDTH, VALUES = 5, 3
PREFIX = ("class", "register0")
LENGTHS = {"equal": (4, 4, 4), "unequal": (4, 3, 7, 4), "one": (5,), "no content": (2, 4)}
COLUMNS = ("values", "position", "source", "features", "energy", "masked", "observed")


def full_tokens(lengths: tuple[int, ...], prefix: tuple[str, ...] = PREFIX) -> Tokens:
    """Tokens in which every column is there and no two entries are equal."""
    total = sum(lengths)
    return replace(
        random_tokens(lengths, WIDTH, prefix),
        source=torch.randn(total, VALUES),
        features=torch.randn(total, 7),
        energy=torch.randn(total),
        masked=torch.rand(total) < 0.5,
        observed=torch.rand(total, VALUES) < 0.5,
        stats=Stats(torch.randn(len(lengths), 1), torch.rand(len(lengths), 1)),
    )


def rows(tokens: Tokens) -> list[list[int]]:
    """Index of every token, sequence by sequence."""
    starts = [sum(tokens.lengths[:i]) for i in range(len(tokens))]
    return [list(range(a, a + n)) for a, n in zip(starts, tokens.lengths, strict=True)]


def assert_taken(found: Tokens, whole: Tokens, index: list[int]) -> None:
    for name in COLUMNS:
        column, expected = getattr(found, name), [getattr(whole, name)[i] for i in index]
        assert len(column) == len(index)
        for entry, other in zip(column, expected, strict=True):
            torch.testing.assert_close(entry, other, rtol=0, atol=0)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_named(lengths: tuple[int, ...]) -> None:
    tokens = full_tokens(lengths)
    for offset, name in enumerate(PREFIX):
        expected = torch.stack([tokens.values[index[offset]] for index in rows(tokens)])
        torch.testing.assert_close(tokens.named(name), expected, rtol=0, atol=0)


def test_named_says_what_the_prefix_is() -> None:
    with pytest.raises(UserError, match=r"'rotation' must be in the tokenizer's prefix, which is \['class'"):
        full_tokens((4,)).named("rotation")


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_content(lengths: tuple[int, ...]) -> None:
    tokens = full_tokens(lengths)
    content = tokens.content()
    assert_taken(content, tokens, [i for index in rows(tokens) for i in index[len(PREFIX) :]])
    assert content.lengths == tuple(length - len(PREFIX) for length in lengths)
    assert content.prefix == ()
    assert content.stats is tokens.stats


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_prefixes(lengths: tuple[int, ...]) -> None:
    tokens = full_tokens(lengths)
    alone = tokens.prefixes()
    assert_taken(alone, tokens, [i for index in rows(tokens) for i in index[: len(PREFIX)]])
    assert alone.lengths == (len(PREFIX),) * len(lengths)
    assert torch.equal(alone.named(PREFIX[-1]), tokens.named(PREFIX[-1]))


def test_content_without_a_prefix_is_all() -> None:
    tokens = full_tokens((3, 2), ())
    assert tokens.content() is tokens


@pytest.mark.parametrize("lengths", [(4, 4, 4), (4, 3, 7, 4), (5,)], ids=["equal", "unequal", "one"])
@pytest.mark.parametrize("prefix", [(), PREFIX], ids=["", "prefix"])
def test_mean(lengths: tuple[int, ...], prefix: tuple[str, ...]) -> None:
    tokens = full_tokens(lengths, prefix)
    expected = [sum(tokens.values[i] for i in index[len(prefix) :]) for index in rows(tokens)]
    counts = [length - len(prefix) for length in lengths]
    expected = torch.stack([total / count for total, count in zip(expected, counts, strict=True)])
    torch.testing.assert_close(tokens.mean(), expected)


def test_per_sequence() -> None:
    tokens = full_tokens((4, 3, 7))
    for part, index in zip(tokens.per_sequence(tokens.source), rows(tokens), strict=True):
        torch.testing.assert_close(part, tokens.source[index], rtol=0, atol=0)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_select_remembers_the_whole(lengths: tuple[int, ...]) -> None:
    tokens = full_tokens(lengths)
    keep = (torch.rand(sum(lengths)) < 0.6) | (tokens.position[:, 0] < 0)
    chosen = tokens.select(keep)
    index = [i for i in range(sum(lengths)) if keep[i]]
    assert_taken(chosen, tokens, index)
    assert chosen.lengths == tuple(sum(bool(keep[i]) for i in of_one) for of_one in rows(tokens))
    assert chosen.kept.tolist() == index
    assert chosen.whole is tokens
    assert chosen.prefix == PREFIX


def test_kept_follows_content() -> None:
    """`kept` still names each token's place in the whole after the prefix is taken away."""
    tokens = full_tokens((6, 6))
    keep = torch.tensor([True, True, False, True, True, False] * 2)
    content = tokens.select(keep).content()
    assert content.kept.tolist() == [3, 4, 9, 10]
    torch.testing.assert_close(content.values, content.whole.values[content.kept], rtol=0, atol=0)


def test_concat_and_split() -> None:
    parts = [full_tokens((3, 4)), full_tokens((2, 2, 5)), full_tokens((6,))]
    pack = concat(parts)
    assert pack.lengths == (3, 4, 2, 2, 5, 6)
    torch.testing.assert_close(pack.position, torch.cat([part.position for part in parts]))
    doubled = pack.split(2 * pack.values)
    for part, twice in zip(parts, doubled, strict=True):
        torch.testing.assert_close(twice.values, 2 * part.values, rtol=0, atol=0)
        assert replace(twice, values=part.values) == part  # all else is untouched


def test_concat_of_one_copies_nothing() -> None:
    tokens = full_tokens((3, 4))
    assert concat([tokens]).values is tokens.values


# The tokenizer: embed, replace masked tokens, place, prefix, drop hidden tokens.


def tokenizer(prefix: tuple[str, ...] = PREFIX) -> Rows:
    made = Rows(prefix)
    made.build(WIDTH, {"values": VALUES})
    torch.nn.init.normal_(made.mask_token)
    return made


def naive_tokenizer(made: Rows, view: View) -> list[Tensor]:
    """The values of each sequence, one token at a time."""
    sequences, seen = [], 0
    for entry in view.data:
        tokens = list(made.prefix_tokens)
        for time, row in enumerate(entry):
            value = made.linear.weight @ row + made.linear.bias
            if view.masked is not None and view.masked[seen]:
                value = made.mask_token
            value = value + 0.1 * time  # a masked token has a position too
            if view.hidden is None or not view.hidden[seen]:
                tokens.append(value)
            seen += 1
        sequences.append(torch.stack(tokens) if tokens else torch.zeros(0, WIDTH))
    return sequences


@pytest.mark.parametrize("lengths", [(4, 4, 4), (4, 1, 7, 4)], ids=["equal", "unequal"])
@pytest.mark.parametrize("prefix", [(), ("class",), PREFIX], ids=["", "one", "two"])
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("hidden", [False, True], ids=["", "hidden"])
def test_tokenizer_order(
    lengths: tuple[int, ...], prefix: tuple[str, ...], masked: bool, hidden: bool
) -> None:
    made, total = tokenizer(prefix), sum(lengths)
    view = View(
        "rows",
        [torch.randn(length, VALUES) for length in lengths],
        masked=torch.rand(total) < 0.5 if masked else None,
        hidden=torch.rand(total) < 0.5 if hidden else None,
    )
    tokens, expected = made(view), naive_tokenizer(made, view)
    assert tokens.lengths == tuple(len(sequence) for sequence in expected)
    torch.testing.assert_close(tokens.values, torch.cat(expected))
    assert tokens.prefix == prefix
    assert (tokens.whole is not None) == hidden


@pytest.mark.parametrize("lengths", [(2, 2), (2, 3)], ids=["equal", "unequal"])
def test_prefix_tokens_have_no_source_position_or_mask(lengths: tuple[int, ...]) -> None:
    made, total = tokenizer(), sum(lengths)
    data = [torch.randn(length, VALUES) for length in lengths]
    tokens = made(View("rows", data, masked=torch.ones(total, dtype=torch.bool)))
    start = 0
    for entry, length in zip(data, lengths, strict=True):
        here = slice(start, start + len(PREFIX) + length)
        assert tokens.position[here, 0].tolist() == [-1, -1, *range(length)]
        assert tokens.position[here, 1:].tolist() == [[-1, -1]] * 2 + [[0, 0]] * length
        assert tokens.masked[here].tolist() == [False, False] + [True] * length
        torch.testing.assert_close(tokens.source[here], torch.cat([torch.zeros(2, VALUES), entry]))
        start = here.stop


def test_masked_tokens_lead_no_gradient_to_their_data() -> None:
    made = tokenizer()
    data = torch.randn(1, 4, VALUES, requires_grad=True)
    masked = torch.tensor([False, True, False, True])
    made(View("rows", data, masked=masked)).values.sum().backward()
    assert (data.grad[0].abs().sum(1) == 0).tolist() == masked.tolist()
    torch.testing.assert_close(made.mask_token.grad, torch.full((WIDTH,), 2.0))


def test_names_in_the_prefix_must_differ() -> None:
    with pytest.raises(ValueError, match="must differ"):
        Rows(("class", "class"))


def test_whole_is_what_a_teacher_sees() -> None:
    clean, seen = torch.randn(6, 4, VALUES), torch.randn(6, 4, VALUES)
    mask = torch.ones(24, dtype=torch.bool)
    view = View("rows", seen, clean=clean, copies=3, masked=mask, hidden=mask)
    assert (len(view), view.samples) == (6, 2)
    whole = view.whole()
    assert whole.data is clean
    assert whole.clean is whole.masked is whole.hidden is None
    assert View("rows", seen).whole().data is seen


def test_a_view_moves_with_all_its_tensors() -> None:
    data = [torch.randn(3, VALUES), torch.randn(2, VALUES)]
    moved = View("rows", data, masked=torch.ones(5), targets={"label": torch.ones(2)}, rate=16_000).to("meta")
    assert {tensor.device.type for tensor in (*moved.data, moved.masked, moved.targets["label"])} == {"meta"}
    assert (moved.rate, moved.hidden) == (16_000, None)
