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
from triptych.backbones.encoder import BlockOptions, Encoder
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.tokens import concat
from triptych.tokenizers.view import View

from .helpers import randomise

SIZE = (24, 40)
SMALL = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
REGISTERS = ("class", "register0", "register1", "register2", "register3")
SWIGLU = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 2 * 2.5}  # gate and value packed
MODELS: dict[str, tuple[str, dict[str, Any], tuple[str, ...], BlockOptions]] = {
    "ViT": ("vit_tiny_patch16_224", {}, ("class",), BlockOptions()),
    "DINO": ("vit_small_patch16_224.dino", {}, ("class",), BlockOptions()),
    "no class token": (
        "vit_tiny_patch16_224",
        {"class_token": False, "global_pool": "avg"},
        (),
        BlockOptions(),
    ),
    "DINOv2": (
        "vit_small_patch14_reg4_dinov2",
        SWIGLU,
        REGISTERS,
        BlockOptions(layer_scale=1e-5, feedforward="swiglu"),
    ),
}
each_model = pytest.mark.parametrize("name", MODELS)


def build(name: str, **shape: Any) -> tuple[nn.Module, ImagePatches, Encoder]:
    """timm's model, and our tokenizer and encoder with its weights."""
    architecture, changes, prefix, options = MODELS[name]
    settings = {"num_classes": 0, "fc_norm": False, "dynamic_img_size": True}
    theirs = timm.create_model(architecture, pretrained=False, **settings, **changes, **shape).eval()
    randomise(theirs, 1 / theirs.embed_dim**0.5)
    (height, width), (patch, _) = theirs.patch_embed.img_size, theirs.patch_embed.patch_size
    tokenizer, block = ImagePatches(patch, prefix), theirs.blocks[0]
    tokenizer.build(theirs.embed_dim, {"channels": 3, "size": [height, width]})
    ratio = block.mlp.fc2.in_features / theirs.embed_dim
    encoder = Encoder(theirs.embed_dim, len(theirs.blocks), block.attn.num_heads, ratio, block=options)
    transplant(theirs.state_dict(), tokenizer, encoder)
    return theirs, tokenizer, encoder


def transplant(state: dict[str, Tensor], tokenizer: ImagePatches, encoder: Encoder) -> None:
    """Every weight of timm's has its place: blocks and norm by name, tokens and positions by meaning."""
    position = state.pop("pos_embed")[0]
    tokens = [state.pop(name)[0] for name in ("cls_token", "reg_token") if name in state]
    patches = len(tokenizer.position_embedding)
    if len(position) > patches:  # the class token's position comes first
        tokens[0] = tokens[0] + position[:-patches]
    tokenizer.load_state_dict(
        {
            "proj.weight": state.pop("patch_embed.proj.weight").flatten(1),
            "proj.bias": state.pop("patch_embed.proj.bias"),
            "position_embedding": position[-patches:],
            "prefix_tokens": torch.cat([position[:0], *tokens]),
            "mask_token": tokenizer.mask_token,  # ours alone
        }
    )
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
