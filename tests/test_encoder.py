"""The encoder: packed equals one by one, its parts follow their formulas, stochastic depth saves work.

Shapes: N sequences, S packed tokens, L tokens of one sequence, D width, H heads, K head width.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from triptych.backbones.encoder import Block, BlockOptions, Encoder
from triptych.backbones.layers import ConformerConvolution, Rotary, SwiGLU, drop_sequences
from triptych.backbones.layout import Layout, layout_across
from triptych.backbones.relative import Relative
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.tokens import Pack, Tokens, concat

from .helpers import assert_same, gradients, random_pack, random_tokens, randomise, singles

HEADS, HEAD_WIDTH, DEPTH = 3, 12, 3
WIDTH = HEADS * HEAD_WIDTH
LENGTHS = (5, 3, 5, 1, 7)
OPTIONS = {
    "pre-norm": BlockOptions(),
    "post-norm": BlockOptions(norm_first=False),
    "rms norm": BlockOptions(norm="rms"),
    "swiglu": BlockOptions(feedforward="swiglu"),
    "no qkv bias": BlockOptions(qkv_bias=False),
    "rotary time": BlockOptions(rotary=1),
    "rotary image": BlockOptions(rotary=2),
    "rotary all": BlockOptions(rotary=3),
    "layer scale": BlockOptions(layer_scale=0.1),
    "conformer": BlockOptions(convolution=3),
    "gated relative positions": BlockOptions(relative=Relative(8, 5)),
    "gated, post-norm": BlockOptions(norm_first=False, relative=Relative(12, 9)),
    "conformer, group norm": BlockOptions(feedforward="silu", convolution=5, convolution_norm="group"),
    "everything": BlockOptions("rms", True, 1e-5, "swiglu", False, 0.5, 1, 5),
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def encoder(options: BlockOptions | None = None, depth: int = DEPTH, **settings: Any) -> Encoder:
    made = Encoder(WIDTH, depth, HEADS, mlp_ratio=1.5, block=options, **settings)
    randomise(made)
    return made


def end(model: Encoder, pack: Pack) -> Tensor:
    """Final tokens `(S, D)`."""
    return torch.cat([part.values for part in model(pack).layers[-1]])


def uneven(values: Tensor) -> Tensor:
    """A scalar to which every value counts differently."""
    return (values * torch.linspace(-1, 1, values.numel()).view_as(values)).sum()


def one_by_one(model: Encoder, pack: Pack) -> Tensor:
    """Final tokens `(S, D)`, each sequence encoded in a pass of its own."""
    return torch.cat([end(model, single) for single in singles(pack)])


@each_option
@pytest.mark.parametrize("final_norm", [True, False], ids=["final norm", ""])
def test_packed_equals_one_by_one(options: BlockOptions, final_norm: bool) -> None:
    """Forward, the gradient of every parameter, and the gradient of the input, in double precision."""
    model, pack = encoder(options, final_norm=final_norm).double(), random_pack(LENGTHS, WIDTH)
    pack = replace(pack, values=pack.values.double().requires_grad_())
    torch.testing.assert_close(end(model, pack), one_by_one(model, pack))
    found, of_input = [], []
    for run in (end, one_by_one):
        found.append(gradients(model, lambda run=run: uneven(run(model, pack))))
        of_input.append(pack.values.grad.clone())
        pack.values.grad = None
    assert_same(*found)
    torch.testing.assert_close(*of_input)


def channels(lengths: Sequence[int], sample: Sequence[int], prefix: Sequence[str] = ()) -> Tokens:
    return replace(random_tokens(lengths, WIDTH, prefix), sample=tuple(sample))


def test_across_joins_the_tokens_of_a_sample_that_stand_at_one_place() -> None:
    """Two views: one with channels of unequal length, some tokens hidden, one with prefix tokens."""
    first = channels([3, 2, 3], [0, 0, 1]).select(torch.tensor([1, 0, 1, 1, 1, 0, 1, 1], dtype=torch.bool))
    layout = layout_across(concat([first, channels([2, 2], [0, 0], ["class"])]))
    arranged = layout.arrange(torch.arange(10)).split(layout.lengths)
    # tokens 0-5 stand at times 0 2 | 0 1 | 1 2, of samples 0 0 1; 6-9 at prefix, 0 | prefix, 0
    assert [part.tolist() for part in arranged] == [[0, 2], [3], [1], [4], [5], [6, 8], [7, 9]]


@each_option
def test_blocks_across_channels_equal_one_place_at_a_time(options: BlockOptions) -> None:
    """A block `along`, one `across`, one `along`; the naive one feeds each place's tokens as one sequence."""
    if options.convolution is not None or options.relative is not None:
        with pytest.raises(ValueError, match=r"axes must be \[along\] for (Conformer|relative)"):
            encoder(options, axes=["along", "across"])
        return
    model = encoder(options, axes=["along", "across"]).eval()
    assert model.axes == ("along", "across", "along")
    pack = concat([channels([5, 5, 5, 7, 7], [0, 0, 0, 1, 1])])
    x = model.blocks[0](pack.values, Layout(pack.lengths), pack.position)
    places = [[5 * c + i for c in range(3)] for i in range(5)] + [
        [15 + 7 * c + i for c in range(2)] for i in range(7)
    ]
    across = torch.empty_like(x)
    for place in places:
        across[place] = model.blocks[1](x[place], Layout((len(place),)), pack.position[place])
    expected = model.norm(model.blocks[2](across, Layout(pack.lengths), pack.position))
    torch.testing.assert_close(end(model, pack), expected)
    assert [tuple(one.shape) for one in model.attention_maps(pack, 2)] == [(HEADS, 3, 3)] * 5 + [
        (HEADS, 2, 2)
    ] * 7


def test_batch_norm_is_one_by_one_only_after_training() -> None:
    """In training its statistics are those of all packed tokens; in evaluation they are the running ones."""
    model, pack = encoder(BlockOptions(norm="batch"), depth=1), random_pack(LENGTHS, WIDTH)
    seen = []
    model.blocks[0].norm1.register_forward_hook(lambda _, inputs, output: seen.append(output))
    packed = end(model, pack)
    norm, x = model.blocks[0].norm1, pack.values
    expected = (x - x.mean(0)) / (x.var(0, unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(seen[0], expected)
    model.eval()
    torch.testing.assert_close(end(model, pack), one_by_one(model, pack), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(end(model, pack), packed, atol=1e-2)


@each_option
def test_layers_are_the_blocks_outputs(options: BlockOptions) -> None:
    model = encoder(options)
    pack = concat([random_tokens((5, 3), WIDTH), random_tokens((4,), WIDTH, ("class",))])
    x, expected, layout = pack.values, {0: pack.values}, Layout(pack.lengths)
    bias = None if model.relative is None else model.relative.along(layout)
    for index, block in enumerate(model.blocks, start=1):
        x = expected[index] = block(x, layout, pack.position, bias)
    expected[-1] = model.norm(x)
    found = model(pack, tuple(expected)).layers
    assert found.keys() == expected.keys()
    for layer, parts in found.items():
        torch.testing.assert_close(torch.cat([part.values for part in parts]), expected[layer])
        assert [part.lengths for part in parts] == [(5, 3), (4,)]
        assert parts[1].prefix == ("class",)


def prefixed() -> Pack:
    """Sequences of several lengths in turn, of two parts, each with two prefix tokens."""
    prefix = ("class", "register")
    return concat([random_tokens(lengths, WIDTH, prefix) for lengths in ((5, 3, 5, 4), (7, 3, 2))])


@each_option
@pytest.mark.parametrize("layers", [(-1,), (DEPTH, -1), (0, 2)], ids=str)
def test_prefix_tokens_alone_are_those_of_all(options: BlockOptions, layers: tuple[int, ...]) -> None:
    """Values and gradients, in double precision; layers below the deepest stay whole."""
    model, pack = encoder(options, checkpoint=True).double(), prefixed()
    pack = replace(pack, values=pack.values.double().requires_grad_())
    outputs, of_input, of_parameters = [], [], []
    for prefix in (True, False):
        found = model(pack, layers, prefix).layers
        ends = [torch.cat([part.prefixes().values for part in found[layer]]) for layer in layers]
        outputs.append(torch.cat(ends))
        ran = [p for name, p in model.named_parameters() if layers[-1] == -1 or f"{DEPTH - 1}." not in name]
        wanted = torch.autograd.grad(uneven(outputs[-1]), [pack.values, *ran], allow_unused=True)
        of_input.append(wanted[0])
        of_parameters.append(wanted[1:])
        lengths = [part.lengths for part in found[layers[-1]]]
        cut = prefix and model.parts_tokens
        assert lengths == ([(2,) * 4, (2,) * 3] if cut else [(5, 3, 5, 4), (7, 3, 2)])
        assert len(layers) == 1 or layers[0] > 0 or found[0][0].lengths == (5, 3, 5, 4)
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*of_input)
    torch.testing.assert_close(*of_parameters)


def test_stochastic_depth_drops_the_same_sequences_where_prefix_tokens_go_on_alone() -> None:
    model, pack = encoder(drop_path=0.6), prefixed()
    for seed in range(4):
        found = []
        for prefix in (True, False):
            torch.manual_seed(seed)
            parts = model(pack, prefix=prefix).layers[-1]
            found.append(torch.cat([part.prefixes().values for part in parts]))
        torch.testing.assert_close(*found)


def test_the_last_block_leaves_out_what_nobody_reads() -> None:
    """All 29 tokens enter the blocks before it; in it, the prefix tokens of 7 sequences alone."""
    model, entered = encoder(), []
    for block in model.blocks:
        block.mlp.register_forward_pre_hook(lambda _, inputs: entered.append(len(inputs[0])))
    model(prefixed(), prefix=True)
    assert entered == [29, 29, 14]
    across = encoder(axes=["along", "along", "across"])
    assert across(prefixed(), prefix=True).layers[-1][0].lengths == (5, 3, 5, 4)
    uneven_prefix = concat([random_tokens((3,), WIDTH, ("class",)), random_tokens((3,), WIDTH)])
    assert [part.lengths for part in model(uneven_prefix, prefix=True).layers[-1]] == [(3,), (3,)]


def test_blocks_above_the_last_layer_read_are_not_run() -> None:
    model, calls = encoder(), []
    for index, block in enumerate(model.blocks, start=1):
        block.register_forward_hook(lambda *_, index=index: calls.append(index))
    model(random_pack(LENGTHS, WIDTH), {2, 0})
    assert calls == [1, 2]


@pytest.mark.parametrize("layer", [-2, DEPTH + 1])
def test_a_layer_that_is_not_there_is_refused(layer: int) -> None:
    with pytest.raises(UserError, match=f"between 0 and {DEPTH}, or be -1 for the end, but is {layer}"):
        encoder()(random_pack((2,), WIDTH), {layer})
    with pytest.raises(UserError, match=f"between 1 and {DEPTH}, or be -1 for the last, but is {layer}"):
        encoder().attention_maps(random_pack((2,), WIDTH), layer)


@each_option
@pytest.mark.parametrize("layer", [1, 2, -1])
def test_attention_maps_are_the_softmax_that_attention_used(options: BlockOptions, layer: int) -> None:
    """Each map times the values, projected, is what the block's attention gave."""
    model, pack = encoder(options), random_pack(LENGTHS, WIDTH)
    block, seen = model.blocks[layer - 1 if layer > 0 else -1], []
    block.attn.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    end(model, pack)
    (x, output), maps = seen[0], model.attention_maps(pack, layer)
    v = (x @ block.attn.qkv.weight[2 * WIDTH :].T).unflatten(1, (HEADS, HEAD_WIDTH))
    if options.qkv_bias:
        v = v + block.attn.qkv.bias[2 * WIDTH :].view(HEADS, HEAD_WIDTH)
    mixed = [torch.einsum("hij,jhk->ihk", a, vi) for a, vi in zip(maps, v.split(LENGTHS), strict=True)]
    torch.testing.assert_close(block.attn.proj(torch.cat(mixed).flatten(1)), output, atol=1e-5, rtol=1e-5)
    for weights, length in zip(maps, LENGTHS, strict=True):
        assert weights.shape == (HEADS, length, length)
        torch.testing.assert_close(weights.sum(-1), torch.ones(HEADS, length))


@pytest.mark.parametrize("settings", [{}, {"drop_path": 0.5}], ids=["", "drop_path"])
def test_checkpointing_recomputes_and_changes_nothing(settings: dict[str, float]) -> None:
    plain, pack = encoder(BlockOptions(dropout=0.3), **settings), random_pack(LENGTHS, WIDTH)
    thrifty = encoder(BlockOptions(dropout=0.3), checkpoint=True, **settings)
    thrifty.load_state_dict(plain.state_dict())
    found, calls = [], []
    for model in (plain, thrifty):
        model.blocks[0].register_forward_pre_hook(lambda module, _: calls.append(module))
        torch.manual_seed(1)  # dropout draws the same in both
        found.append(gradients(model, lambda model=model: uneven(end(model, pack))))
    assert calls == [plain.blocks[0], thrifty.blocks[0], thrifty.blocks[0]]
    assert_same(*found)


def test_linear_layers_start_as_wide_as_their_sides_ask() -> None:
    made = Encoder(64, 2, 4)
    weights = [m.weight for m in made.modules() if isinstance(m, nn.Linear)]
    biases = [m.bias for m in made.modules() if isinstance(m, nn.Linear)]
    assert len(weights) == 2 * 4
    for weight, bias in zip(weights, biases, strict=True):
        assert weight.std().item() == pytest.approx((2 / sum(weight.shape)) ** 0.5, rel=0.1)
        assert bias.abs().max() == 0


# The parts, each against its formula.


def test_post_norm_is_the_first_transformer() -> None:
    """torch's own encoder layer, with our weights."""
    block = Block(WIDTH, HEADS, 17, 0.0, BlockOptions(norm_first=False, norm_eps=1e-5))
    randomise(block)
    twin = nn.TransformerEncoderLayer(WIDTH, HEADS, 17, 0.0, F.gelu, batch_first=True)
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.proj.",
        "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.",
    }
    state = block.state_dict()
    for theirs, ours in names.items():
        state |= {f"{theirs}{kind}": state.pop(f"{ours}{kind}") for kind in ("weight", "bias")}
    twin.load_state_dict(state)
    x = torch.randn(2 * 5, WIDTH)
    found = block(x, Layout((5, 5)), torch.zeros(10, 3))
    torch.testing.assert_close(found.view(2, 5, WIDTH), twin(x.view(2, 5, WIDTH)), atol=1e-5, rtol=1e-5)


def test_conformer_block_is_the_papers_figure() -> None:
    """x + FF/2, + attention, + convolution, + FF/2, norm (Gulati et al. 2020, equation 1)."""
    block = Block(WIDTH, HEADS, 17, 0.0, BlockOptions(convolution=3))
    randomise(block)
    x, layout, position = torch.randn(7, WIDTH), Layout((4, 3)), torch.zeros(7, 3)
    one = x + 0.5 * block.mlp0(block.norm0(x))
    two = one + block.attn(block.norm1(one), layout, position)
    three = two + block.conv(two, layout)
    expected = block.norm3(three + 0.5 * block.mlp(block.norm2(three)))
    torch.testing.assert_close(block(x, layout, position), expected)


def test_conformer_convolution_token_by_token() -> None:
    width, kernel, lengths = 5, 3, (4, 1, 2)
    part = ConformerConvolution(width, kernel)
    randomise(part)
    x = torch.randn(sum(lengths), width)
    gated, value = (part.norm(x) @ part.expand.weight.T + part.expand.bias).split(width, dim=1)
    inner, expected = gated * torch.sigmoid(value), []
    start = 0
    for length in lengths:
        for t in range(length):
            total = part.depthwise.bias.clone()
            for tap in range(kernel):
                at = t + tap - kernel // 2
                if 0 <= at < length:  # nothing comes from the neighbouring sequence
                    total = total + part.depthwise.weight[:, 0, tap] * inner[start + at]
            expected.append(total)
        start += length
    mixed = part.inner_norm(torch.stack(expected))
    expected = (mixed * torch.sigmoid(mixed)) @ part.project.weight.T + part.project.bias
    torch.testing.assert_close(part(x, Layout(lengths)), expected)


@pytest.mark.parametrize(("axes", "columns"), [(1, [0]), (2, [1, 2]), (3, [0, 1, 2])])
def test_rotary_turns_pairs_by_the_angle_of_their_position(axes: int, columns: list[int]) -> None:
    """Each pair as a complex number times exp(i position base^(-pair / pairs))."""
    rotary, position = Rotary(HEAD_WIDTH, axes, base=100.0), torch.randint(0, 9, (7, 3))
    x = torch.randn(7, HEADS, HEAD_WIDTH)
    pairs = HEAD_WIDTH // 2 // axes
    expected = torch.empty_like(x)
    for token in range(7):
        for pair in range(HEAD_WIDTH // 2):
            where = position[token, columns[pair // pairs]].item()
            angle = torch.tensor(where * 100.0 ** (-(pair % pairs) / pairs))
            number = torch.complex(x[token, :, 2 * pair], x[token, :, 2 * pair + 1])
            turned = number * torch.polar(torch.tensor(1.0), angle)
            expected[token, :, 2 * pair], expected[token, :, 2 * pair + 1] = turned.real, turned.imag
    torch.testing.assert_close(rotary(x, position), expected, atol=1e-5, rtol=1e-5)


def test_rotary_scores_depend_on_distance_alone_and_prefix_tokens_are_not_turned() -> None:
    rotary, q, k = Rotary(HEAD_WIDTH), torch.randn(1, 1, HEAD_WIDTH), torch.randn(1, 1, HEAD_WIDTH)

    def score(i: int, j: int) -> Tensor:
        return (rotary(q, torch.tensor([[i, 0, 0]])) * rotary(k, torch.tensor([[j, 0, 0]]))).sum()

    torch.testing.assert_close(score(9, 4), score(7, 2), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(score(9, 4), score(9, 5), atol=1e-3)
    torch.testing.assert_close(rotary(q, torch.full((1, 3), -1)), q)


def test_swiglu() -> None:
    part, x = SwiGLU(5, 7), torch.randn(3, 5)
    gate, value = (x @ part.fc1.weight.T + part.fc1.bias).split(7, dim=1)
    expected = (gate / (1 + (-gate).exp()) * value) @ part.fc2.weight.T + part.fc2.bias
    torch.testing.assert_close(part(x), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rotary(10, axes=2), "multiple of 4, but is 10"),
        (lambda: ConformerConvolution(4, 2), "odd, but is 2"),
        (lambda: Encoder(4, 1, 1, drop_path=0.1, block=BlockOptions(norm_first=False)), "but is 0.1"),
    ],
)
def test_parts_that_cannot_be_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# Stochastic depth.


def constant(x: Tensor, *_: object) -> Tensor:
    return torch.ones_like(x)


@pytest.mark.parametrize("rate", [0.25, 0.4, 0.9])
def test_stochastic_depth_keeps_the_expectation(rate: float) -> None:
    """A branch that is one everywhere: dropped sequences get 0, kept ones N / kept, all equally often."""
    lengths, draws = (2, 1, 3, 2, 1), 400
    total, starts = len(lengths), torch.tensor([0, 2, 3, 6, 8])
    x, layout, position = torch.zeros(sum(lengths), 1), Layout(lengths), torch.zeros(sum(lengths), 3)
    drawn = [drop_sequences(constant, x, layout, position, None, rate).squeeze(1) for _ in range(draws)]
    for output in drawn:
        factors = output[starts]
        torch.testing.assert_close(output, factors.repeat_interleave(torch.tensor(lengths)))
        torch.testing.assert_close(factors.sum(), torch.tensor(float(total)))
        assert len({round(factor, 4) for factor in factors.tolist()} - {0.0}) == 1
    factors = torch.stack(drawn)[:, starts]
    error = factors.std(0) / draws**0.5
    assert ((factors.mean(0) - 1).abs() < 4 * error).all()
    kept = (factors > 0).float().sum(1).mean().item()
    assert kept == pytest.approx(max(1, total * (1 - rate)), abs=0.1)


def test_stochastic_depth_saves_the_work_of_what_it_drops() -> None:
    """Rates rise from 0 to `drop_path`; half of ten sequences never enter the last block's branches."""
    model, pack = encoder(drop_path=0.5), random_pack((2, 3) * 5, WIDTH)
    entered = {}
    for index, block in enumerate(model.blocks):
        for part in ("attn", "mlp"):

            def count(_: nn.Module, inputs: tuple[Tensor, ...], key: tuple[int, str] = (index, part)) -> None:
                entered[key] = len(inputs[0])

            getattr(block, part).register_forward_pre_hook(count)
    end(model, pack)
    assert entered[0, "attn"] == entered[0, "mlp"] == 25
    assert 7 * 2 <= entered[1, "attn"] < 25  # rate .25: seven or eight sequences of ten
    assert 5 * 2 <= entered[2, "attn"] <= 5 * 3
    assert 5 * 2 <= entered[2, "mlp"] <= 5 * 3
    model.eval()
    end(model, pack)
    assert set(entered.values()) == {25}


def test_stochastic_depth_takes_each_sequence_with_its_positions_and_bias() -> None:
    """The branch sees only kept sequences, each with its own tokens, positions and place in the bias."""
    lengths, order = (3, 2, 3, 4), torch.randperm(12)
    x, position = torch.randn(12, WIDTH), torch.arange(36).view(12, 3)
    asked = []

    def bias(sequences: tuple[int, ...], length: int) -> Tensor:
        asked.extend(sequences)
        return torch.zeros(())

    def residual(part: Tensor, layout: Layout, where: Tensor, of_kept: Callable[..., Tensor]) -> Tensor:
        assert layout.order is None
        for group in layout.groups:
            of_kept(group.sequences, group.length)
        start = 0
        for sequence, length in zip(sorted(asked), layout.lengths, strict=True):
            assert length == lengths[sequence]
            begin = sum(lengths[:sequence])
            tokens = order[begin : begin + length]
            torch.testing.assert_close(part[start : start + length], x[tokens])
            torch.testing.assert_close(where[start : start + length], position[tokens])
            start += length
        return part

    output = drop_sequences(residual, x, Layout(lengths, order), position, bias, 0.5)
    kept = torch.cat([order[sum(lengths[:i]) : sum(lengths[: i + 1])] for i in asked])
    assert len(asked) == 2
    expected = x.clone()
    expected[kept] *= 3  # itself, and twice itself for the one of two that is kept
    torch.testing.assert_close(output, expected)
