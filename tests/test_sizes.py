"""The packaged sizes: one name each, over any recipe, and as large as timm's."""

import pytest
import timm
import torch
import torchaudio
from triptych.tasks.build import build_model
from triptych.tasks.config import merge, sizes

NAMES = {
    "Ti": "tiny_patch16",
    "S": "small_patch16",
    "B": "base_patch16",
    "L": "large_patch16",
    "H": "huge_patch14",
}

#: Parameters in the paper's table 2 (Babu et al. 2021), and torchaudio's builder of the encoder.
XLSR = {
    "0.3B": (317, torchaudio.models.wav2vec2_xlsr_300m),
    "1B": (965, torchaudio.models.wav2vec2_xlsr_1b),
    "2B": (2162, torchaudio.models.wav2vec2_xlsr_2b),
}


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("size", NAMES)
def test_a_vit_of_this_size_has_as_many_parameters_as_timms(size: str) -> None:
    name = f"vit_{NAMES[size]}_224"
    patch = int(name.partition("patch")[2].partition("_")[0])
    image = {"patch": patch, "overlap": 0, "prefix": ["class"], "positions": "learned"}
    config = merge(["vision/vit", f"sizes/{size}"], {"model.tokenizers.image": image})
    values = {"teacher": None, "evaluate_with": "student"}
    facts = {"channels": 3, "size": [224, 224], "classes": [str(index) for index in range(1000)]}
    with torch.device("meta"):
        made = build_model(config.values["model"] | values)
        made.build({"train": "image"}, {"image": facts})
        # timm's class token has a position of its own, where ours has the mask token beside it
        assert count(made) == count(timm.create_model(name, num_classes=1000))


@pytest.mark.parametrize("size", XLSR)
def test_xlsr_of_this_size_has_as_many_parameters_as_published(size: str) -> None:
    config = merge(["speech/xlsr", f"sizes/XLS-R-{size}"])
    millions, theirs = XLSR[size]
    with torch.device("meta"):
        made = build_model(config.values["model"])
        made.build({"train": "audio"}, {"audio": {"rate": 16000}})
        # torchaudio's has no mask token, which is as wide as the encoder
        read = count(made.tokenizers) + count(made.encoder) - made.encoder.width
        assert read == count(theirs())
    assert count(made) // 10**6 == millions
    assert (config.values["data"]["init_args"]["rate"], config.name) == (16000, "xlsr")


def test_every_size_is_packaged_and_keeps_the_recipes_name() -> None:
    assert set(sizes()) == {f"sizes/{size}" for size in (*NAMES, *(f"XLS-R-{size}" for size in XLSR))}
    both = merge(["vision/dino", "sizes/S"])
    assert both.name == "dino" and both.header == merge(["vision/dino"]).header
    assert both.values["model"]["encoder"]["width"] == 384
    assert both.values["model"]["objectives"] == merge(["vision/dino"]).values["model"]["objectives"]
    assert merge(["sizes/S", "vision/dino"]).values["model"]["encoder"]["width"] == 48  # later ones win
