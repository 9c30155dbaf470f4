"""The same numbers as timm, given its weights: ViT, DINO's shape, and DINOv2's with registers.

timm's models are small and rectangular here, their weights random and none of them trivial. At another
resolution both resample learnt positions bicubically with antialiasing, in whole patches, as DINOv2 with
registers does; DINO's own release resamples without antialiasing and with a small offset. Grids of one column are left out: there the
kernel that torch 2.14 takes for timm's memory layout is wrong, by more than 1 against double precision.

Shapes: n images, S packed tokens, D width.
"""

from typing import Any

import pytest
import timm
import torch
from timm.layers import SwiGLUPacked
from torch import Tensor, nn
from triptych.backbones.encoder import BlockOptions, Encoder
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.tokens import concat
from triptych.tokenizers.view import View

from .helpers import randomise

WIDTH, DEPTH, HEADS, PATCH, SIZE = 24, 3, 3, 8, (24, 40)
SMALL = {
    "pretrained": False,
    "num_classes": 0,
    "img_size": SIZE,
    "patch_size": PATCH,
    "embed_dim": WIDTH,
    "depth": DEPTH,
    "num_heads": HEADS,
    "dynamic_img_size": True,
}
REGISTERS = ("class", "register0", "register1", "register2", "register3")
MODELS: dict[str, tuple[str, dict[str, Any], tuple[str, ...], BlockOptions, float]] = {
    "ViT": ("vit_tiny_patch16_224", {}, ("class",), BlockOptions(), 4.0),
    "DINO": ("vit_small_patch16_224.dino", {"mlp_ratio": 3.0}, ("class",), BlockOptions(), 3.0),
    "no class token": (
        "vit_tiny_patch16_224",
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        (),
        BlockOptions(),
        4.0,
    ),
    "DINOv2": (
        "vit_small_patch14_reg4_dinov2",
        {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 2 * 2.5},
        REGISTERS,
        BlockOptions(layer_scale=1e-5, feedforward="swiglu"),
        2.5,
    ),
}
each_model = pytest.mark.parametrize("name", MODELS)


def build(name: str) -> tuple[nn.Module, ImagePatches, Encoder]:
    """timm's model, and our tokenizer and encoder with its weights."""
    architecture, changes, prefix, options, ratio = MODELS[name]
    theirs = timm.create_model(architecture, **(SMALL | changes)).eval()
    randomise(theirs, 0.2)
    tokenizer = ImagePatches(PATCH, prefix)
    tokenizer.build(WIDTH, {"channels": 3, "size": SIZE})
    encoder = Encoder(WIDTH, DEPTH, HEADS, ratio, block=options)
    transplant(theirs.state_dict(), tokenizer, encoder)
    return theirs, tokenizer, encoder


def transplant(state: dict[str, Tensor], tokenizer: ImagePatches, encoder: Encoder) -> None:
    """Every weight of timm's has its place: blocks and norm by name, tokens and positions by meaning."""
    position = state.pop("pos_embed")[0]
    tokens = [state.pop(name)[0] for name in ("cls_token", "reg_token") if name in state]
    if len(position) > SIZE[0] * SIZE[1] // PATCH**2:  # the class token's position comes first
        tokens[0] = tokens[0] + position[:1]
        position = position[1:]
    of_tokenizer = {
        "proj.weight": state.pop("patch_embed.proj.weight").flatten(1),
        "proj.bias": state.pop("patch_embed.proj.bias"),
        "position_embedding": position,
        "prefix_tokens": torch.cat(tokens) if tokens else torch.zeros(0, WIDTH),
        "mask_token": tokenizer.mask_token,  # ours alone
    }
    tokenizer.load_state_dict(of_tokenizer)
    encoder.load_state_dict(state)


def encode(tokenizer: ImagePatches, encoder: Encoder, *images: Tensor) -> list[Tensor]:
    """Final tokens of images of several sizes, from one packed pass, each `(n, L, D)`."""
    parts = encoder(concat([tokenizer(View("image", one)) for one in images])).layers[-1]
    return [part.values.unflatten(0, (len(part), part.lengths[0])) for part in parts]


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.abs().max() > 0.1  # parity of nothing is no parity
    assert (ours - theirs).abs().max() < 1e-4


@each_model
def test_all_final_tokens(name: str) -> None:
    theirs, tokenizer, encoder = build(name)
    images = torch.randn(2, 3, *SIZE)
    (ours,) = encode(tokenizer, encoder, images)
    assert_close(ours, theirs.forward_features(images))


@each_model
def test_gradients(name: str) -> None:
    """Of an uneven scalar, with respect to the images and to the weights of first and last block."""
    theirs, tokenizer, encoder = build(name)
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
    position = weights["pos_embed"][0]
    patches = len(tokenizer.position_embedding)
    assert_close_relative(tokenizer.position_embedding.grad, position[len(position) - patches :])
    if "cls_token" in weights:
        assert_close_relative(tokenizer.prefix_tokens.grad[:1], weights["cls_token"][0])


def assert_close_relative(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() < 1e-4 * max(theirs.abs().max(), 1)


@each_model
@pytest.mark.parametrize("size", [(40, 24), (16, 16), (56, 64), (8, 8)], ids=str)
def test_other_resolutions(name: str, size: tuple[int, int]) -> None:
    theirs, tokenizer, encoder = build(name)
    images = torch.randn(2, 3, *size)
    (ours,) = encode(tokenizer, encoder, images)
    assert_close(ours, theirs.forward_features(images))


@each_model
def test_crops_of_several_sizes_in_one_packed_pass(name: str) -> None:
    theirs, tokenizer, encoder = build(name)
    crops = [torch.randn(2, 3, *SIZE), torch.randn(5, 3, 16, 16), torch.randn(1, 3, 8, 32)]
    for ours, images in zip(encode(tokenizer, encoder, *crops), crops, strict=True):
        assert_close(ours, theirs.forward_features(images))
