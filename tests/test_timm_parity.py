"""The same numbers as timm, given its weights: ViT, DINO's shape, and DINOv2's with registers.

timm's models are small and rectangular here, their weights random and none of them trivial. At another
resolution both resample learnt positions bicubically with antialiasing, in whole patches, as DINOv2 with
registers does; DINO's own release resamples without antialiasing and with a small offset. Grids of one
column are left out: there the kernel that torch 2.14 takes for timm's memory layout is wrong, by more than
1 against double precision.

Shapes: n images, S packed tokens, D width.
"""

from typing import Any

import pytest
import timm
import torch
from timm.layers import SwiGLUPacked
from torch import Tensor, nn
from triptych.backbones.encoder import Encoder
from triptych.tasks.weights.port import built
from triptych.tasks.weights.registry import family
from triptych.tasks.weights.source import open_source
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.tokens import concat
from triptych.tokenizers.view import View

from .helpers import randomise

SIZE = (24, 40)
SMALL = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
SWIGLU = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 2 * 2.5}  # gate and value packed
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("vit_tiny_patch16_224", {}),
    "DINO": ("vit_small_patch16_224.dino", {}),
    "no class token": ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
    "DINOv2": ("vit_small_patch14_reg4_dinov2", SWIGLU),
}
each_model = pytest.mark.parametrize("name", MODELS)


def build(name: str, **shape: Any) -> tuple[nn.Module, ImagePatches, Encoder]:
    """timm's model, and our tokenizer and encoder with its weights."""
    architecture, changes = MODELS[name]
    settings = {"num_classes": 0, "fc_norm": False, "dynamic_img_size": True}
    theirs = timm.create_model(architecture, pretrained=False, **settings, **changes, **shape).eval()
    randomise(theirs, 1 / theirs.embed_dim**0.5)
    model, missing = built(family("timm").read(open_source(theirs)))
    assert missing == ["tokenizers.image.mask_token"]
    return theirs, model.tokenizers["image"], model.encoder


def encode(tokenizer: ImagePatches, encoder: Encoder, *images: Tensor) -> list[Tensor]:
    """Final tokens of images of several sizes, from one packed pass, each `(n, L, D)`."""
    parts = encoder(concat([tokenizer(View("image", one)) for one in images])).layers[-1]
    return [part.values.unflatten(0, (len(part), part.lengths[0])) for part in parts]


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.abs().max() > 0.1  # parity of nothing is no parity
    assert (ours - theirs).abs().max() < 1e-4


@each_model
def test_all_final_tokens(name: str) -> None:
    theirs, tokenizer, encoder = build(name, **SMALL)
    images = torch.randn(2, 3, *SIZE)
    (ours,) = encode(tokenizer, encoder, images)
    assert_close(ours, theirs.forward_features(images))


@pytest.mark.slow
@each_model
def test_all_final_tokens_at_full_size(name: str) -> None:
    """ViT-Ti/16 and ViT-S/16 at 224 pixels, ViT-S/14 with registers and SwiGLU at 518."""
    theirs, tokenizer, encoder = build(name)
    images = torch.randn(1, 3, *theirs.patch_embed.img_size)
    with torch.no_grad():
        (ours,) = encode(tokenizer, encoder, images)
        assert_close(ours, theirs.forward_features(images))


@each_model
def test_gradients(name: str) -> None:
    """Of an uneven scalar, with respect to the images and to the weights of first and last block."""
    theirs, tokenizer, encoder = build(name, **SMALL)
    found = []
    for model in (theirs.forward_features, lambda x: encode(tokenizer, encoder, x)[0]):
        images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1)).requires_grad_()
        output = model(images)
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        found.append(images.grad)
    weights = {name: p.grad for name, p in theirs.named_parameters()}
    assert_close_relative(found[1], found[0])
    for name, parameter in encoder.named_parameters():
        assert_close_relative(parameter.grad, weights[name])
    assert_close_relative(tokenizer.proj.weight.grad, weights["patch_embed.proj.weight"].flatten(1))
    patches = len(tokenizer.position_embedding)
    assert_close_relative(tokenizer.position_embedding.grad, weights["pos_embed"][0, -patches:])
    if "cls_token" in weights:
        assert_close_relative(tokenizer.prefix_tokens.grad[:1], weights["cls_token"][0])


def assert_close_relative(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() < 1e-4 * max(theirs.abs().max(), 1)


@each_model
@pytest.mark.parametrize("size", [(40, 24), (16, 16), (56, 64), (8, 8)], ids=str)
def test_other_resolutions(name: str, size: tuple[int, int]) -> None:
    theirs, tokenizer, encoder = build(name, **SMALL)
    images = torch.randn(2, 3, *size)
    (ours,) = encode(tokenizer, encoder, images)
    assert_close(ours, theirs.forward_features(images))


@each_model
def test_crops_of_several_sizes_in_one_packed_pass(name: str) -> None:
    theirs, tokenizer, encoder = build(name, **SMALL)
    crops = [torch.randn(2, 3, *SIZE), torch.randn(5, 3, 16, 16), torch.randn(1, 3, 8, 32)]
    for ours, images in zip(encode(tokenizer, encoder, *crops), crops, strict=True):
        assert_close(ours, theirs.forward_features(images))
