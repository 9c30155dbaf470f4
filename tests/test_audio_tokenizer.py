"""Audio tokenizers: convolutions against plain loops, exact packing, and the numbers of frames."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from triptych.tokenizers.audio import AudioFrames, ConvolutionalPosition, Positions, by_length
from triptych.tokenizers.audio_logmel import LogMelFrames
from triptych.tokenizers.audio_waveform import WAV2VEC2, ScaledGradient, WaveformFrames
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.view import View

CONVOLUTIONS = ((7, 5, 3), (11, 4, 2), (13, 2, 2))
RATE = 1000


def waveform_frames(norm: str = "layer", width: int = 34, **options: object) -> WaveformFrames:
    tokenizer = WaveformFrames(CONVOLUTIONS, norm, positions=Positions(6, 2), **options)
    tokenizer.build(width, {"rate": RATE})
    return tokenizer


def log_mel_frames(**options: object) -> LogMelFrames:
    tokenizer = LogMelFrames(5, window=32, hop=10, positions=Positions(3, 1), **options)
    tokenizer.build(17, {"rate": RATE})
    return tokenizer


def every_tokenizer() -> dict[str, AudioFrames]:
    return {
        "group": waveform_frames("group", bias=True, prefix=("class",)),
        "layer": waveform_frames("layer", feature_gradient=0.1),
        "utterance": log_mel_frames(stack=3),
        "global": log_mel_frames(normalise="global", stack=1, prefix=("a", "b")),
    }


def naive_convolution(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """`(C, T)` -> `(C', T')`, one output at a time."""
    kernel = weight.shape[2]
    starts = range(0, x.shape[1] - kernel + 1, stride)
    return torch.stack([(weight * x[:, s : s + kernel]).sum((1, 2)) for s in starts], dim=1)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_features_equal_the_formula(norm: str) -> None:
    tokenizer = waveform_frames(norm)
    waveform = torch.randn(101)
    x = waveform.unsqueeze(0)
    for index, layer in enumerate(tokenizer.layers):
        x = naive_convolution(x, layer.conv.weight, layer.conv.stride[0])
        if norm == "layer":
            x = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
        elif index == 0:
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        x = F.gelu(x)
    embedded = tokenizer.embed(View("audio", [waveform]))
    torch.testing.assert_close(embedded.energy, x.square().mean(0))
    features = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(embedded.features, features.T)
    torch.testing.assert_close(embedded.values, tokenizer.project(features.T))


@pytest.mark.parametrize("kernel", [5, 6])
def test_positions_equal_the_formula(kernel: int) -> None:
    """Tap j of an even kernel k sees the token j - k / 2 places on; outside there are zeros."""
    module = ConvolutionalPosition(6, kernel, 3)
    x = torch.randn(1, 7, 6)
    weight = module.conv.weight  # (D, D / groups, k)
    expected = torch.zeros(7, 6)
    for time in range(7):
        for channel in range(6):
            total = module.conv.bias[channel].clone()
            for tap in range(kernel):
                seen = time + tap - kernel // 2
                if 0 <= seen < 7:
                    group = channel // 2
                    total = total + weight[channel, :, tap] @ x[0, seen, 2 * group : 2 * group + 2]
            expected[time, channel] = F.gelu(total)
    torch.testing.assert_close(module(x)[0], expected)


def test_the_positional_weight_is_normed_over_all_but_taps() -> None:
    module = ConvolutionalPosition(6, 5, 3)
    scale = module.conv.parametrizations.weight.original0
    assert scale.shape == (1, 1, 5)
    torch.testing.assert_close(module.conv.weight.norm(dim=(0, 1)), scale.flatten())


@pytest.mark.parametrize("name", sorted(every_tokenizer()))
def test_packed_equals_one_by_one_with_gradients(name: str) -> None:
    tokenizer = every_tokenizer()[name]
    waveforms = [torch.randn(length) for length in (157, 211, 157, 101, 389)]
    lengths = [tokenizer.num_tokens((len(waveform),)) for waveform in waveforms]
    masked = torch.rand(sum(lengths)) < 0.4
    packed = tokenizer(View("audio", waveforms, masked=masked))
    alone = [
        tokenizer(View("audio", [waveform], masked=part))
        for waveform, part in zip(waveforms, masked.split(lengths), strict=True)
    ]
    assert packed.lengths == tuple(length + len(tokenizer.prefix) for length in lengths)
    for column in ("values", "features", "energy", "source", "position", "masked"):
        if getattr(packed, column) is not None:
            joined = torch.cat([getattr(tokens, column) for tokens in alone])
            torch.testing.assert_close(getattr(packed, column), joined, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(packed.values)
    parameters = [p for p in tokenizer.parameters() if p.requires_grad]
    together = torch.autograd.grad((packed.values * weight).sum(), parameters, allow_unused=True)
    values = torch.cat([tokens.values for tokens in alone])
    separately = torch.autograd.grad((values * weight).sum(), parameters, allow_unused=True)
    for one, other in zip(together, separately, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(every_tokenizer()))
def test_the_number_of_tokens_is_exact(name: str) -> None:
    tokenizer = every_tokenizer()[name]
    for samples in range(60, 140):
        expected = tokenizer.num_tokens((samples,))
        if expected:
            assert tokenizer.embed(View("audio", [torch.randn(samples)])).lengths == (expected,)
        else:
            with pytest.raises(UserError, match=f"one has only {samples} samples"):
                tokenizer(View("audio", [torch.randn(samples)]))


def test_wav2vec2_has_a_frame_of_25_ms_every_20_ms() -> None:
    tokenizer = WaveformFrames(WAV2VEC2)
    assert [tokenizer.num_tokens((samples,)) for samples in (399, 400, 719, 720, 16000)] == [0, 1, 1, 2, 49]


def test_masked_frames_are_replaced_before_positions() -> None:
    tokenizer = waveform_frames()
    waveform = torch.randn(157)
    count = tokenizer.num_tokens((157,))
    masked = torch.zeros(count, dtype=torch.bool)
    masked[3:9] = True
    tokens = tokenizer(View("audio", [waveform], masked=masked))
    embedded = tokenizer.embed(View("audio", [waveform]))
    x = torch.where(masked.unsqueeze(1), tokenizer.mask_token, embedded.values)
    torch.testing.assert_close(tokens.values, x + tokenizer.position(x.unsqueeze(0))[0])
    torch.testing.assert_close(tokens.features, embedded.features)  # the targets stay whole


def test_the_gradient_of_the_features_is_scaled() -> None:
    x = torch.randn(3, 5, requires_grad=True)
    ScaledGradient.apply(x, 0.1).square().sum().backward()
    torch.testing.assert_close(x.grad, 0.2 * x.detach())
    full, tenth = waveform_frames(), waveform_frames(feature_gradient=0.1)
    tenth.load_state_dict(full.state_dict())
    view = View("audio", [torch.randn(157)])
    for tokenizer in (full, tenth):
        tokenizer(view).values.square().sum().backward()
    torch.testing.assert_close(tenth.layers[0].conv.weight.grad, 0.1 * full.layers[0].conv.weight.grad)
    torch.testing.assert_close(tenth.project.weight.grad, full.project.weight.grad)


def test_log_mel_frames_of_a_tone_peak_in_its_band() -> None:
    tokenizer = log_mel_frames(stack=2, normalise="global", mean=0.0, deviation=1.0)
    time = torch.arange(500) / RATE
    frames = tokenizer.embed(View("audio", [torch.sin(2 * torch.pi * 250 * time)])).source
    assert frames is not None and frames.shape == (23, 10)
    centre = tokenizer.spectrogram.mel_scale.fb.argmax(0) * RATE / 2 / 16  # Hz of each band
    nearest = int((centre - 250).abs().argmin())
    assert (frames.unflatten(1, (2, 5)).argmax(-1) == nearest).all()


def test_log_mel_frames_are_normalised_over_the_utterance_and_stacked_in_order() -> None:
    tokenizer = log_mel_frames(stack=1)
    waveform = torch.randn(322)
    frames = tokenizer.embed(View("audio", [waveform])).source
    assert frames is not None and frames.shape == (30, 5)
    torch.testing.assert_close(frames.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(frames.std(0, correction=0), torch.ones(5), atol=1e-3, rtol=0)
    stacked = log_mel_frames(stack=3).embed(View("audio", [waveform])).source
    torch.testing.assert_close(stacked, frames.reshape(10, 15))


def test_a_mask_for_other_frames_is_refused() -> None:
    with pytest.raises(UserError, match=r"the view's mask must be for 12 frames, but is for 5"):
        waveform_frames()(View("audio", [torch.randn(157)], masked=torch.zeros(5, dtype=torch.bool)))


def test_groups_must_divide_the_width() -> None:
    with pytest.raises(UserError, match="must divide the width 34, but is 16"):
        WaveformFrames(CONVOLUTIONS).build(34, {"rate": RATE})


def test_by_length_keeps_the_order() -> None:
    sequences = [torch.full((length, 2), float(length)) for length in (3, 1, 3, 2, 1)]
    sizes: list[tuple[int, ...]] = []

    def function(x: Tensor) -> Tensor:
        sizes.append(tuple(x.shape))
        return x + 1

    results = by_length(function, sequences)
    assert [len(result) for result in results] == [3, 1, 3, 2, 1]
    assert all((result == len(result) + 1).all() for result in results)
    assert sizes == [(2, 3, 2), (2, 1, 2), (1, 2, 2)]


def test_post_norm_tokenizers_norm_what_they_place() -> None:
    tokenizer = WaveformFrames(CONVOLUTIONS, positions=Positions(6, 2, norm=True))
    tokenizer.build(34, {"rate": RATE})
    values = tokenizer(View("audio", [torch.randn(157)])).values
    torch.testing.assert_close(values.mean(1), torch.zeros(len(values)), atol=1e-5, rtol=0)
