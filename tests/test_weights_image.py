"""Published vision transformers in and out: the same numbers, every weight accounted for, nothing lost.

The originals are random models of timm and transformers, small, with sizes that differ by axis. There is
no package for Facebook's names: timm's own conversion of them is the original for DINOv2, and timm's model
for DINO and MAE, whose names it shares.

Shapes: n images, D width.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from triptych.tasks.model import Model
from triptych.tasks.weights.dinov2 import unchunked
from triptych.tasks.weights.family import Source
from triptych.tasks.weights.names import State
from triptych.tasks.weights.port import branch, built, export_weights, import_weights
from triptych.tasks.weights.registry import family, recognise
from triptych.tasks.weights.source import open_source
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.view import View

from .helpers import randomise

SIZE = 40
#: Width 24, 3 heads, 2 blocks, patches of 8, 5 x 5 of them.
TIMM: dict[str, Any] = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
HF: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": SIZE, "patch_size": 8
}  # fmt: skip
NO_CLASS = {"class_token": False, "global_pool": "avg", "fc_norm": False}
SWIGLU = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 2 * 2.5}


def of_timm(architecture: str, **changes: Any) -> nn.Module:
    settings = {"num_classes": 0, "dynamic_img_size": True}
    model = timm.create_model(architecture, pretrained=False, **settings | TIMM | changes)
    randomise(model, 24**-0.5)
    return model.eval()


def of_transformers(kind: str, **changes: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, kind.replace("Model", "").replace("ForImageClassification", "") + "Config")
    model = getattr(transformers, kind)(config(**HF | changes))
    randomise(model, 24**-0.5)
    return model.eval()


#: Models whose own output is the original.
OBJECTS: dict[str, Callable[[], nn.Module]] = {
    "timm ViT": lambda: of_timm("vit_tiny_patch16_224"),
    "timm DeiT, distilled": lambda: of_timm("deit_tiny_distilled_patch16_224"),
    "timm without class token": lambda: of_timm("vit_tiny_patch16_224", **NO_CLASS),
    "timm with registers": lambda: of_timm("vit_small_patch14_reg4_dinov2"),
    "timm with registers and SwiGLU": lambda: of_timm("vit_small_patch14_reg4_dinov2", **SWIGLU),
    "timm, rectangular": lambda: of_timm("vit_tiny_patch16_224", img_size=(24, SIZE)),
    "Hugging Face ViT": lambda: of_transformers("ViTModel", intermediate_size=56),
    "Hugging Face DINOv2": lambda: of_transformers("Dinov2Model", mlp_ratio=3),
    "Hugging Face DINOv2, SwiGLU": lambda: of_transformers("Dinov2Model", mlp_ratio=3, use_swiglu_ffn=True),
    "Hugging Face DINOv2 with registers": lambda: of_transformers("Dinov2WithRegistersModel", mlp_ratio=2),
}  # fmt: skip
each_object = pytest.mark.parametrize("name", OBJECTS)


def tokens(original: nn.Module, images: Tensor) -> Tensor:
    """All final tokens of an original `(n, L, D)`."""
    if hasattr(original, "forward_features"):
        return original.forward_features(images)
    if type(original).__name__ == "ViTModel":
        return original(images, interpolate_pos_encoding=True).last_hidden_state
    return original(images).last_hidden_state


def ours(model: Model, images: Tensor) -> Tensor:
    values = model.embed(View("image", images)).values
    return values.unflatten(0, (len(images), -1))


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 0.1  # parity of nothing is no parity
    assert (found - expected).abs().max() < 1e-4


@torch.no_grad()
@each_object
def test_outputs_equal_the_originals_at_any_size(name: str) -> None:
    original = OBJECTS[name]()
    source = open_source(original)
    carried = recognise(source).read(source)
    assert carried.unexpected == [] and all(name.startswith("pooler") for name in carried.aside)
    model, missing = built(carried)
    assert set(missing) <= {"tokenizers.image.mask_token"}
    for size in ((SIZE, SIZE), (48, 24), (16, 64)):
        images = torch.randn(3, 3, *size)
        assert_close(ours(model, images), tokens(original, images))


@each_object
def test_what_is_exported_comes_back_bit_for_bit(name: str) -> None:
    """To every format that has a name for all parts of the model."""
    source = open_source(OBJECTS[name]())
    model, _ = built(recognise(source).read(source))
    randomise(model.tokenizers)  # the mask token too
    weights, formats = branch(model), ["timm", "dinov2", "hf-image"]
    if "distilled" in name or "without" in name:
        formats = ["timm"]
    if "rectangular" in name:
        formats.remove("dinov2")  # a bare file of Facebook's is always of a square
    for format in formats:
        state = family(format).write(weights, model)
        config = source.config | {"heads": 3, "image_size": list(grid_size(model))}
        config |= {"model_args": {"img_size": list(grid_size(model))}}
        again, missing = built(family(format).read(Source("", state, config)))
        back = branch(again)
        assert set(missing) <= {"tokenizers.image.mask_token"}
        assert back.keys() == weights.keys()
        assert [n for n in back if not torch.equal(back[n], weights[n]) and n not in missing] == []


def grid_size(model: Model) -> tuple[int, int]:
    tokenizer = model.tokenizers["image"]
    return tokenizer.grid[0] * 8, tokenizer.grid[1] * 8


@torch.no_grad()
@each_object
def test_what_is_exported_is_what_the_other_project_loads(name: str) -> None:
    """Strictly, every weight there and none too many, and to the same numbers."""
    original = OBJECTS[name]()
    source = open_source(original)
    kind = recognise(source)
    model, _ = built(kind.read(source))
    state = kind.write(branch(model), model)
    images = torch.randn(2, 3, *grid_size(model))
    expected = tokens(original, images)
    if kind.name == "timm":
        randomise(original)
        original.load_state_dict(state)
    else:
        loaded, report = type(original).from_pretrained(
            None, config=original.config, state_dict=state, output_loading_info=True
        )
        assert not report["unexpected_keys"]
        assert all(key.startswith("pooler") or key.endswith("mask_token") for key in report["missing_keys"])
        original = loaded.eval()
    assert_close(tokens(original, images), expected)


def facebook_dinov2(registers: int, swiglu: bool, chunks: int) -> State:
    """Random weights under Facebook's names: width 24, 4 blocks, patches of 8, 5 x 5 of them."""
    hidden = 40
    sizes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, 24), "pos_embed": (1, 26, 24), "mask_token": (1, 24),
        "patch_embed.proj.weight": (24, 3, 8, 8), "patch_embed.proj.bias": (24,),
        "norm.weight": (24,), "norm.bias": (24,),
    }  # fmt: skip
    if registers:
        sizes["register_tokens"] = (1, registers, 24)
    block = {"norm1": (24,), "attn.qkv": (72, 24), "attn.proj": (24, 24), "norm2": (24,)}
    block |= (
        {"mlp.w12": (2 * hidden, 24), "mlp.w3": (24, hidden)}
        if swiglu
        else {"mlp.fc1": (96, 24), "mlp.fc2": (24, 96)}
    )
    for index in range(4):
        stem = f"blocks.{index // (4 // chunks)}.{index}." if chunks else f"blocks.{index}."
        for part, shape in block.items():
            sizes |= {f"{stem}{part}.weight": shape, f"{stem}{part}.bias": shape[:1]}
        sizes |= {f"{stem}ls1.gamma": (24,), f"{stem}ls2.gamma": (24,)}
    return {name: torch.randn(shape) * 24**-0.5 for name, shape in sizes.items()}


@torch.no_grad()
@pytest.mark.parametrize("chunks", [0, 2])
@pytest.mark.parametrize(("registers", "swiglu"), [(0, False), (4, False), (4, True)])
def test_facebooks_dinov2_equals_timms_conversion_of_it(registers: int, swiglu: bool, chunks: int) -> None:
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = facebook_dinov2(registers, swiglu, chunks)
    changes = {**(SWIGLU | {"mlp_ratio": 2 * 40 / 24} if swiglu else {}), "depth": 4}
    architecture = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    original = of_timm(architecture, **changes)
    plain = {unchunked(name): tensor.clone() for name, tensor in state.items()}
    original.load_state_dict(checkpoint_filter_fn(plain, original))
    kind = recognise(Source("", state))
    carried = kind.read(Source("", state, {"heads": 3}))
    model, missing = built(carried)
    assert (kind.name, missing, carried.unexpected, carried.aside) == ("dinov2", [], [], [])
    images = torch.randn(2, 3, SIZE, SIZE)
    assert_close(ours(model, images), original.forward_features(images))
    back = kind.write(branch(model), model)
    assert back.keys() == {unchunked(name) for name in state}
    assert torch.equal(back["mask_token"], state["mask_token"])


@torch.no_grad()
@pytest.mark.parametrize(("name", "registers"), [("dino", 0), ("dinov2", 0), ("dinov2", 4)])
def test_positions_are_resampled_as_facebook_resamples_them(name: str, registers: int) -> None:
    """By the scale (rows + .1) / rows, not antialiased; with registers by the sizes, antialiased."""
    state = facebook_dinov2(registers, False, 0)
    if name == "dino":
        state = {n: t for n, t in state.items() if ".ls" not in n and n != "mask_token"}
    model, _ = built(family(name).read(Source("", state, {"heads": 3})))
    grid = state["pos_embed"][:, 1:].reshape(1, 5, 5, 24).permute(0, 3, 1, 2)
    for rows, columns in ((3, 4), (7, 5), (5, 11)):
        if registers:
            expected = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=True)
        else:
            scale = ((rows + 0.1) / 5, (columns + 0.1) / 5)
            expected = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        found = model.tokenizers["image"].position_grid(rows, columns)
        torch.testing.assert_close(found, expected.flatten(2)[0].T)


@torch.no_grad()
@pytest.mark.parametrize("student", [False, True])
def test_a_checkpoint_of_dino(tmp_path: Path, student: bool) -> None:
    """Teacher or student, with their wrappers' prefixes and heads, and the run's arguments beside them."""
    import argparse

    originals = {"teacher": of_timm("vit_tiny_patch16_224"), "student": of_timm("vit_tiny_patch16_224")}
    head = {"head.mlp.0.weight": torch.randn(7, 24), "head.last_layer.weight_g": torch.ones(11, 1)}
    checkpoint: dict[str, Any] = {"epoch": 3, "args": argparse.Namespace(arch="vit_tiny")}
    for part, stem in (("student", "module."), ("teacher", "")):
        backbone = {f"{stem}backbone.{name}": t for name, t in originals[part].state_dict().items()}
        checkpoint[part] = backbone | {stem + name: tensor for name, tensor in head.items()}
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    name, part = ("dino", "student") if student else (None, None)
    run, report = import_weights(tmp_path / "checkpoint.pth", tmp_path / "run", name, part, heads=3)
    assert report.family == "dino" and report.unexpected == [] and len(report.aside) == 2
    images = torch.randn(2, 3, SIZE, SIZE)
    assert_close(ours(run.model, images), originals[part or "teacher"].forward_features(images))


@torch.no_grad()
def test_mae_of_facebook_sets_its_decoder_aside(tmp_path: Path) -> None:
    original = of_timm("vit_tiny_patch16_224")
    decoder = {"decoder_pos_embed": torch.randn(1, 26, 16), "decoder_embed.weight": torch.randn(16, 24)}
    state = original.state_dict() | decoder | {"mask_token": torch.randn(1, 1, 16)}
    torch.save({"model": state}, tmp_path / "mae.pth")
    run, report = import_weights(tmp_path / "mae.pth", tmp_path / "run", heads=3)
    assert report.family == "mae"
    assert report.aside == ["decoder_embed.weight", "decoder_pos_embed", "mask_token"]
    images = torch.randn(2, 3, SIZE, SIZE)
    assert_close(ours(run.model, images), original.forward_features(images))


@torch.no_grad()
def test_mae_of_hugging_face_sets_its_decoder_aside() -> None:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    decoder = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 20}
    sizes = {f"decoder_{name}": size for name, size in decoder.items()}
    config = ViTMAEConfig(**HF, **sizes, intermediate_size=56, mask_ratio=0.0)
    original = ViTMAEForPreTraining(config).eval()
    randomise(original, 24**-0.5)
    source = open_source(original)
    carried = recognise(source).read(source)
    assert carried.unexpected == [] and all(name.startswith("decoder.") for name in carried.aside)
    model, missing = built(carried)
    assert missing == ["tokenizers.image.mask_token"]
    images = torch.randn(2, 3, SIZE, SIZE)
    in_order = torch.arange(25.0).repeat(2, 1)  # the noise that shuffles patches
    assert_close(ours(model, images), original.vit(images, noise=in_order).last_hidden_state)


def test_another_activation_is_refused() -> None:
    source = open_source(of_transformers("ViTModel", hidden_act="relu"))
    with pytest.raises(UserError, match="with hidden_act gelu, but theirs is 'relu'"):
        recognise(source).read(source)


@torch.no_grad()
@pytest.mark.parametrize("project", ["timm", "transformers"])
def test_a_classifier_comes_with_its_classes(project: str) -> None:
    if project == "timm":
        original, classes = of_timm("vit_tiny_patch16_224", num_classes=7), [str(i) for i in range(7)]
    else:
        classes = [f"kind {i}" for i in range(7)]
        labels = {i: name for i, name in enumerate(classes)}
        original = of_transformers("ViTForImageClassification", intermediate_size=56, id2label=labels)
    source = open_source(original)
    carried = recognise(source).read(source)
    assert carried.facts["classes"] == classes and not carried.aside
    model, _ = built(carried)
    images = torch.randn(2, 3, SIZE, SIZE)
    output = original(images)
    assert_close(model.predict(View("image", images)), output if project == "timm" else output.logits)
    back = recognise(source).write(branch(model), model)
    assert torch.equal(
        back[f"{'head' if project == 'timm' else 'classifier'}.bias"],
        carried.weights["objective.members.classification.head.bias"],
    )


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", ["vit_base_patch16_224", "vit_base_patch14_reg4_dinov2", "Dinov2Model"])
def test_outputs_equal_at_base_size(name: str) -> None:
    if name == "Dinov2Model":
        from transformers import Dinov2Config, Dinov2Model

        original, size = Dinov2Model(Dinov2Config(image_size=518, patch_size=14)).eval(), 518
    else:
        original = timm.create_model(name, pretrained=False, num_classes=0).eval()
        size = original.patch_embed.img_size[0]
    source = open_source(original)
    model, _ = built(recognise(source).read(source))
    images = torch.randn(1, 3, size, size)
    assert_close(ours(model, images), tokens(original, images))


def test_export_of_a_run_is_a_file_the_run_comes_back_from(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    run, _ = import_weights(OBJECTS["timm ViT"](), tmp_path / "one")
    save_file(export_weights(run, "timm"), tmp_path / "one.safetensors")
    again, report = import_weights(tmp_path / "one.safetensors", tmp_path / "two", heads=3)
    assert report.missing == ["tokenizers.image.mask_token"]
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
