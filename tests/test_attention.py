"""One attention: the backends agree, forward and backward, and stay inside each sequence.

Shapes: S packed tokens, H heads, K head width, L tokens of one sequence.
"""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from triptych.backbones import attention
from triptych.backbones.attention import Attention, attend, block_diagonal, choose_backend
from triptych.backbones.layout import Layout
from triptych.tokenizers.errors import UserError

HEADS, HEAD_WIDTH = 3, 5
CPU = torch.device("cpu")
LENGTHS = {
    "one sequence": (7,),
    "equal lengths": (5, 5, 5),
    "contiguous groups": (5, 5, 3, 3, 2),
    "interleaved groups": (5, 3, 5, 2, 3, 5),
    "single tokens": (1, 4, 1, 1),
    "only single tokens": (1, 1),
}


def qkv(total: int, heads: int = HEADS, head_width: int = HEAD_WIDTH) -> list[Tensor]:
    return [torch.randn(total, heads, head_width, requires_grad=True) for _ in range(3)]


def with_gradients(attended: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of an uneven sum of it."""
    weights = torch.linspace(-1, 1, attended.numel(), device=attended.device).view_as(attended)
    return [attended, *torch.autograd.grad((attended.float() * weights).sum(), inputs)]


def formula(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """softmax(q k^T / sqrt(K)) v, one sequence, one head and one query at a time."""
    output, start = torch.zeros_like(q), 0
    for length in lengths:
        here = range(start, start + length)
        for head in range(q.shape[1]):
            for i in here:
                scores = torch.stack([q[i, head] @ k[j, head] for j in here]) / q.shape[2] ** 0.5
                weights = scores.exp() / scores.exp().sum()
                output[i, head] = sum(w * v[j, head] for w, j in zip(weights, here, strict=True))
        start += length
    return output


def alibi(heads: int = HEADS) -> Callable[[tuple[int, ...], int], Tensor]:
    """A bias that differs by sequence, head and distance."""

    def bias(sequences: tuple[int, ...], length: int) -> Tensor:
        distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()
        slope = 1 + torch.arange(heads).view(-1, 1, 1)
        return -0.1 * (1 + torch.tensor(sequences)).view(-1, 1, 1, 1) * slope * distance

    return bias


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("backend", ["sdpa", "naive"])
def test_backends_follow_the_formula(lengths: tuple[int, ...], backend: str) -> None:
    inputs = qkv(sum(lengths))
    expected = formula(*(tensor.detach() for tensor in inputs), lengths)
    torch.testing.assert_close(attend(*inputs, Layout(lengths), backend=backend), expected)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("with_bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("permuted", [False, True], ids=["", "permuted"])
def test_sdpa_equals_naive(lengths: tuple[int, ...], with_bias: bool, permuted: bool) -> None:
    inputs = qkv(sum(lengths))
    layout = Layout(lengths, torch.randperm(sum(lengths)) if permuted else None)
    bias = alibi() if with_bias else None
    found, expected = (
        with_gradients(attend(*inputs, layout, bias, backend), inputs) for backend in ("sdpa", "naive")
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("asking", [1, 2])
@pytest.mark.parametrize("lengths", [(5, 5), (5, 5, 3), (5, 3, 5, 2, 3)], ids=str)
def test_where_some_tokens_ask_they_get_what_they_get_among_all(
    asking: int, lengths: tuple[int, ...]
) -> None:
    inputs, layout = qkv(sum(lengths)), Layout(lengths, asking=asking)
    whole = layout.ask(attend(*inputs, Layout(lengths), backend="naive"))
    assert len(whole) == asking * len(lengths)
    expected = with_gradients(whole, inputs)
    for backend in ("sdpa", "naive"):
        q, k, v = inputs
        found = attend(layout.ask(q), k, v, layout, backend=backend)
        torch.testing.assert_close(with_gradients(found, inputs), expected)


def test_a_bias_may_leave_out_axes_and_learns() -> None:
    lengths, inputs = (3, 2, 3), qkv(8)
    gradients = []
    for backend in ("sdpa", "naive"):
        slope = torch.tensor(0.3, requires_grad=True)

        def bias(sequences: tuple[int, ...], length: int, slope: Tensor = slope) -> Tensor:
            return slope * torch.arange(length).float()

        attend(*inputs, Layout(lengths), bias, backend).square().sum().backward()
        gradients.append(slope.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0] != 0


def test_order_runs_sequences_along_another_axis() -> None:
    """Tokens stored as (time, channel): attention across channels equals that of the transposed tokens."""
    times, channels = 5, 3
    inputs = qkv(times * channels)
    stored_by_channel = [x.unflatten(0, (channels, times)) for x in inputs]
    order = torch.arange(channels * times).view(channels, times).T.flatten()
    found = attend(*inputs, Layout((channels,) * times, order))
    by_time = [x.transpose(0, 1).flatten(0, 1) for x in stored_by_channel]
    expected = attend(*by_time, Layout((channels,) * times)).unflatten(0, (times, channels))
    torch.testing.assert_close(found, expected.transpose(0, 1).flatten(0, 1))


def test_one_sequence_never_sees_another() -> None:
    lengths = (3, 4, 3)
    q, k, v = qkv(sum(lengths))
    output = attend(q, k, v, Layout(lengths))
    for gradient in torch.autograd.grad(output[3:7].sum(), [q, k, v]):
        assert gradient[:3].abs().max() == 0 == gradient[7:].abs().max()


def test_a_layout_first_seen_in_inference_mode_can_be_trained_with() -> None:
    """Lightning's validation runs in inference mode before the first training step."""
    lengths = (3, 2, 3, 1, 4)  # used by no other test: the cache must be cold
    inputs = qkv(sum(lengths))
    with torch.inference_mode():
        attend(*inputs, Layout(lengths))
    with_gradients(attend(*inputs, Layout(lengths)), inputs)


def test_the_mask_given_to_xformers_lets_some_tokens_ask_all_of_their_sequence() -> None:
    if attention._xformers() is None:
        pytest.skip("needs xformers")
    mask = block_diagonal((3, 2, 4), CPU, (1, 1, 1)).materialize((3, 9))
    expected = torch.block_diag(*(torch.ones(1, length) for length in (3, 2, 4)))
    assert torch.equal((mask == 0).float(), expected)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_the_mask_given_to_xformers_means_the_same(lengths: tuple[int, ...]) -> None:
    """Without a GPU: its block-diagonal mask as a dense additive one equals the naive backend."""
    if attention._xformers() is None:
        pytest.skip("needs xformers")
    total, inputs = sum(lengths), qkv(sum(lengths))
    mask = block_diagonal(lengths, CPU).materialize((1, HEADS, total, total))
    scores = torch.einsum("ihk,jhk->hij", *inputs[:2]) / HEAD_WIDTH**0.5 + mask[0]
    dense = torch.einsum("hij,jhk->ihk", scores.softmax(-1), inputs[2])
    found = with_gradients(dense, inputs)
    torch.testing.assert_close(
        found, with_gradients(attend(*inputs, Layout(lengths), backend="naive"), inputs)
    )


def test_a_backend_is_forced_by_argument_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    for name in ("_naive", "_grouped"):
        real = getattr(attention, name)
        monkeypatch.setattr(
            attention, name, lambda *a, name=name, real=real: (used.append(name), real(*a))[1]
        )
    inputs, layout = qkv(4), Layout((4,))
    attend(*inputs, layout)
    attend(*inputs, layout, backend="naive")
    monkeypatch.setenv("TRIPTYCH_ATTENTION", "naive")
    attend(*inputs, layout)
    attend(*inputs, layout, backend="sdpa")
    assert used == ["_grouped", "_naive", "_naive", "_grouped"]


def test_the_best_backend_is_chosen_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIPTYCH_ATTENTION", raising=False)
    monkeypatch.setattr(attention, "_xformers", lambda: object())
    assert choose_backend("cpu") == "sdpa"
    assert choose_backend("cuda:1") == "xformers"
    monkeypatch.setattr(attention, "_xformers", lambda: None)
    assert choose_backend("cuda") == "sdpa"


@pytest.mark.parametrize("forced", ["flash", "SDPA"])
def test_an_unknown_backend_is_refused(forced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=f"one of xformers, sdpa, naive, but is '{forced}'"):
        choose_backend("cpu", forced)
    monkeypatch.setenv("TRIPTYCH_ATTENTION", forced)
    with pytest.raises(UserError, match=forced):
        choose_backend("cpu")


def test_xformers_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="needs CUDA, but runs on cpu"):
        choose_backend("cpu", "xformers")
    monkeypatch.setattr(attention, "_xformers", lambda: None)
    with pytest.raises(UserError, match="must be installed"):
        choose_backend("cuda", "xformers")


@pytest.mark.parametrize(
    ("dtype", "head_width", "capability", "expected"),
    [
        (torch.float32, 64, (9, 0), True),
        (torch.float32, 64, (10, 0), False),
        (torch.bfloat16, 64, (10, 0), True),
        (torch.float32, 20, (8, 0), True),
        (torch.float32, 5, (8, 0), False),
        (torch.bfloat16, 20, (8, 0), False),
        (torch.bfloat16, 264, (8, 0), False),
        (torch.float64, 64, (8, 0), False),
    ],
)
def test_where_xformers_has_kernels(
    dtype: torch.dtype,
    head_width: int,
    capability: tuple[int, int],
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert attention._has_kernel(torch.zeros(1, 1, head_width, dtype=dtype)) is expected


@pytest.mark.slow  # a process of its own, and xformers imports torch's compiler
def test_xformers_is_imported_silently() -> None:
    code = "from triptych.backbones.attention import _xformers; _xformers()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"divide the width \(13\), but is 3"):
        Attention(13, 3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 5e-4), (torch.bfloat16, 2e-2)], ids=["fp32", "bf16"]
)
@pytest.mark.parametrize("permuted", [False, True], ids=["", "permuted"])
def test_xformers_kernel_equals_naive(
    lengths: tuple[int, ...], dtype: torch.dtype, atol: float, permuted: bool
) -> None:
    """The real kernel in `dtype` against the naive backend in fp32, forward and backward."""
    total = sum(lengths)
    inputs = [torch.randn(total, 2, 64, device="cuda", dtype=dtype, requires_grad=True) for _ in range(3)]
    exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
    layout = Layout(lengths, torch.randperm(total, device="cuda") if permuted else None)
    assert choose_backend("cuda") == "xformers" and attention._has_kernel(inputs[0])
    found = with_gradients(attend(*inputs, layout), inputs)
    expected = with_gradients(attend(*exact, layout, backend="naive"), exact)
    torch.testing.assert_close(found, expected, atol=atol, rtol=atol, check_dtype=False)
