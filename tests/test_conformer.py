"""The Conformer: torchaudio's numbers, packed as alone, and BigSSL's task on it."""

from dataclasses import replace

import pytest
import torch
import torchaudio
from torch import Tensor, nn
from triptych.backbones.encoder import BlockOptions, Encoder
from triptych.objectives.masked_contrastive import MaskedContrastive
from triptych.tasks.model import Model
from triptych.tokenizers.audio import Positions
from triptych.tokenizers.audio_logmel import LogMelFrames
from triptych.tokenizers.view import View

from .helpers import random_pack, randomise

WIDTH, HEADS, HIDDEN, DEPTH, KERNEL = 14, 2, 28, 3, 5
#: torchaudio's name of a part of a block, and ours.
PARTS = {
    "ffn1.sequential.0": "norm0",
    "ffn1.sequential.1": "mlp0.fc1",
    "ffn1.sequential.4": "mlp0.fc2",
    "self_attn_layer_norm": "norm1",
    "self_attn.in_proj_": "attn.qkv.",
    "self_attn.out_proj": "attn.proj",
    "conv_module.layer_norm": "conv.norm",
    "conv_module.sequential.0": "conv.expand",
    "conv_module.sequential.2": "conv.depthwise",
    "conv_module.sequential.3": "conv.inner_norm",
    "conv_module.sequential.5": "conv.project",
    "ffn2.sequential.0": "norm2",
    "ffn2.sequential.1": "mlp.fc1",
    "ffn2.sequential.4": "mlp.fc2",
    "final_layer_norm": "norm3",
}


def pair() -> tuple[Encoder, nn.Module]:
    """Ours and torchaudio's with the same random weights, in evaluation mode."""
    theirs = torchaudio.models.Conformer(WIDTH, HEADS, HIDDEN, DEPTH, KERNEL, 0.1, use_group_norm=True)
    randomise(theirs)
    options = BlockOptions(
        feedforward="silu", norm_eps=1e-5, convolution=KERNEL, convolution_norm="group", dropout=0.1
    )
    ours = Encoder(WIDTH, DEPTH, HEADS, HIDDEN / WIDTH, final_norm=False, block=options)
    weights = {}
    for name, tensor in theirs.state_dict().items():
        _, layer, part = name.split(".", 2)
        (stem,) = (stem for stem in PARTS if part.startswith(stem))
        kind = part.rpartition(".")[2].removeprefix("in_proj_")
        mapped = f"blocks.{layer}.{PARTS[stem].rstrip('.')}.{kind}"
        pointwise = mapped.endswith(("expand.weight", "project.weight"))
        weights[mapped] = tensor.squeeze(-1) if pointwise else tensor
    assert weights.keys() == ours.state_dict().keys()
    ours.load_state_dict(weights)
    return ours.eval(), theirs.eval()


def test_equals_torchaudio_one_by_one_and_packed() -> None:
    ours, theirs = pair()
    lengths = (7, 11, 7, 1, 5)
    pack = random_pack(lengths, WIDTH)
    values = pack.values.clone().requires_grad_()
    (packed,) = ours(replace(pack, values=values)).layers[-1]
    weights = torch.randn_like(values)
    (packed.values * weights).sum().backward()
    clips = zip(*(tensor.split(lengths) for tensor in (packed.values, pack.values, weights)), strict=True)
    for (found, x, weight), gradient in zip(clips, values.grad.split(lengths), strict=True):
        x = x.clone().requires_grad_()
        expected, _ = theirs(x.unsqueeze(0), torch.tensor([len(x)]))
        torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=1e-4)
        (expected[0] * weight).sum().backward()
        torch.testing.assert_close(gradient, x.grad, atol=1e-4, rtol=1e-3)


def test_torchaudios_padded_batch_is_not_each_clip_alone_and_ours_is() -> None:
    """Its group norm and convolution read the padding (pytorch/audio#2242 is of the same kind)."""
    ours, theirs = pair()
    clips = [torch.randn(7, WIDTH), torch.randn(3, WIDTH)]
    padded = nn.utils.rnn.pad_sequence(clips, batch_first=True)
    together, _ = theirs(padded, torch.tensor([7, 3]))
    alone, _ = theirs(clips[1].unsqueeze(0), torch.tensor([3]))
    assert (together[1, :3] - alone[0]).abs().max() > 1e-2
    pack = random_pack((7, 3), WIDTH)
    (packed,) = ours(replace(pack, values=torch.cat(clips))).layers[-1]
    torch.testing.assert_close(packed.values[7:], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_bigssls_loss_and_gradients_are_those_of_each_clip_alone(norm: str) -> None:
    tokenizer = LogMelFrames(5, window=32, hop=10, stack=2, positions=Positions(3, 1))
    options = BlockOptions(feedforward="silu", convolution=5, convolution_norm=norm, rotary=1)
    encoder = Encoder(8, 2, 2, final_norm=False, block=options)
    built = Model({"audio": tokenizer}, encoder, {"bigssl": MaskedContrastive(width=7)})
    built.build({"train": "audio"}, {"audio": {"rate": 1000}})
    built.double().eval()
    draw = torch.Generator().manual_seed(3)
    waves = [torch.randn(length, generator=draw).double() for length in (301, 170, 231, 170)]
    frames = [tokenizer.num_tokens(wave.shape) for wave in waves]
    masks = [torch.rand(count, generator=draw) < 0.6 for count in frames]
    parameters = [p for p in built.parameters() if p.requires_grad]

    def loss(chosen: list[int]) -> Tensor:
        view = View("audio", [waves[i] for i in chosen], masked=torch.cat([masks[i] for i in chosen]))
        return built({"train": view}).terms["bigssl/contrastive"].sum

    together, apart = loss([0, 1, 2, 3]), torch.stack([loss([i]) for i in range(4)]).sum()
    torch.testing.assert_close(together, apart)
    pairs = zip(
        torch.autograd.grad(together, parameters, allow_unused=True),
        torch.autograd.grad(apart, parameters, allow_unused=True),
        strict=True,
    )
    for one, other in pairs:
        if one is not None:
            torch.testing.assert_close(one, other)
