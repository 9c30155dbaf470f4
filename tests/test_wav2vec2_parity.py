"""The whole wav2vec 2.0 encoder against torchaudio and Hugging Face, with their random weights copied in."""

import pytest
import torch
import torchaudio
from torch import nn
from triptych.tasks.weights.port import built
from triptych.tasks.weights.registry import recognise
from triptych.tasks.weights.source import open_source
from triptych.tokenizers.audio_waveform import WAV2VEC2
from triptych.tokenizers.tokens import concat
from triptych.tokenizers.view import View

#: Base: group norm, post-norm; large and XLS-R: layer norm, biases, pre-norm.
SHAPES = {"base": (768, 12, 12, "group", False), "large": (1024, 24, 16, "layer", True)}
#: Three convolutions, even and odd kernels, and an encoder of two blocks.
TINY = ((13, 10, 5), (13, 3, 2), (13, 2, 2))


def transplanted(original: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Tokenizer and encoder with another project's weights, every one of which is used."""
    source = open_source(original)
    carried = recognise(source).read(source)
    assert (carried.unexpected, carried.aside) == ([], [])
    model, _ = built(carried)
    return model.tokenizers["audio"], model.encoder


def randomise(module: nn.Module) -> nn.Module:
    """Norms and biases start at 0 and 1, where mistakes hide."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def of_torchaudio(
    shape: tuple[int, int, int, str, bool], convolutions: tuple, kernel: int, groups: int
) -> nn.Module:
    width, depth, heads, norm, large = shape
    return torchaudio.models.wav2vec2_model(
        f"{norm}_norm", list(convolutions), large, width, 0.0, kernel, groups, depth, heads,
        0.0, 4 * width, 0.0, 0.0, large, 0.0, None,
    )  # fmt: skip


@pytest.mark.parametrize("large", [False, True])
def test_equals_torchaudio(large: bool) -> None:
    shape = (34, 2, 2, "layer" if large else "group", large)
    theirs = randomise(of_torchaudio(shape, TINY, 8, 2))
    tokenizer, encoder = transplanted(theirs)
    waveforms = [torch.randn(length) for length in (401, 557, 401, 211)]
    packed = encoder(concat([tokenizer(View("audio", waveforms))])).layers[-1][0]
    for waveform, values in zip(waveforms, packed.per_sequence(packed.values), strict=True):
        torch.testing.assert_close(values, theirs(waveform.unsqueeze(0))[0][0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("large", [False, True])
def test_equals_torchaudio_layer_by_layer_with_gradients(large: bool) -> None:
    shape = (34, 2, 2, "layer" if large else "group", large)
    theirs = randomise(of_torchaudio(shape, TINY, 7, 2))
    tokenizer, encoder = transplanted(theirs)
    mine, other = torch.randn(2, 311).requires_grad_(), torch.empty(2, 311).requires_grad_()
    other.data.copy_(mine.data)
    layers = encoder(concat([tokenizer(View("audio", list(mine)))]), (1, 2)).layers
    expected, _ = theirs.extract_features(other)
    for layer, values in enumerate(expected, start=1):
        torch.testing.assert_close(layers[layer][0].values, values.flatten(0, 1), atol=2e-5, rtol=1e-4)
    weights = torch.randn_like(expected[-1])
    (layers[2][0].values * weights.flatten(0, 1)).sum().backward()
    (expected[-1] * weights).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("large", [False, True])
def test_equals_hugging_face(large: bool) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    shape = (34, 2, 2, "layer" if large else "group", large)
    channels, kernels, strides = zip(*TINY, strict=True)
    config = Wav2Vec2Config(
        hidden_size=34, num_hidden_layers=2, num_attention_heads=2, intermediate_size=136,
        conv_dim=channels, conv_kernel=kernels, conv_stride=strides, conv_bias=large,
        feat_extract_norm=shape[3], do_stable_layer_norm=large,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    theirs = randomise(Wav2Vec2Model(config))
    tokenizer, encoder = transplanted(theirs)
    waveforms = torch.randn(3, 401)
    packed = encoder(concat([tokenizer(View("audio", list(waveforms)))])).layers[-1][0]
    expected = theirs(waveforms).last_hidden_state
    torch.testing.assert_close(packed.values, expected.flatten(0, 1), atol=2e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_equals_torchaudio_at_full_size(name: str) -> None:
    shape = SHAPES[name]
    theirs = of_torchaudio(shape, WAV2VEC2, 128, 16).eval()
    tokenizer, encoder = transplanted(theirs)
    waveform = torch.randn(1, 16000)
    with torch.no_grad():
        values = encoder(concat([tokenizer(View("audio", list(waveform)))])).layers[-1][0].values
        assert (values - theirs(waveform)[0][0]).abs().max() < 1e-4
