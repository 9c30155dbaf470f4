"""Every objective of speech, over every front end: a clip's frames, loss and gradients are those of it alone.

In evaluation mode and double precision, so that nothing is drawn but negatives, which at these lengths are
all the others.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from triptych.backbones.encoder import BlockOptions, Encoder
from triptych.backbones.relative import Relative
from triptych.backbones.teacher import Teacher
from triptych.objectives.contrastive_ctc import ContrastiveCTC
from triptych.objectives.ctc import CTC
from triptych.objectives.latent_regression import LatentRegression
from triptych.objectives.layer_classification import LayerClassification
from triptych.objectives.masked_contrastive import MaskedContrastive
from triptych.objectives.masked_prediction import MaskedPrediction
from triptych.objectives.objective import Objective, Read
from triptych.objectives.quantiser import GumbelQuantiser
from triptych.objectives.random_quantiser import RandomQuantiser
from triptych.tasks.model import Model
from triptych.tokenizers.audio import AudioFrames, Positions
from triptych.tokenizers.audio_logmel import LogMelFrames
from triptych.tokenizers.audio_waveform import WaveformFrames
from triptych.tokenizers.view import View

RATE, WIDTH, UNITS = 1000, 8, 5
LENGTHS = (301, 170, 231, 170)
FACTS = {"rate": RATE, "units": UNITS, "alphabet": ["a", "b", "c"], "classes": ["x", "y", "z"]}


def waveform(norm: str) -> WaveformFrames:
    return WaveformFrames(
        [(6, 20, 10), (6, 2, 2)], norm=norm, bias=True, positions=Positions(4, 2, norm == "group")
    )


FRONT_ENDS: dict[str, Callable[[], AudioFrames]] = {
    "group norm": lambda: waveform("group"),
    "layer norm": lambda: waveform("layer"),
    "log-mel": lambda: LogMelFrames(
        5, window=32, hop=10, stack=2, positions=Positions(3, 1), prefix=["class"]
    ),
}
BLOCKS = {
    "group norm": BlockOptions(norm_first=False),
    "layer norm": BlockOptions(relative=Relative(8, 9)),
    "log-mel": BlockOptions(feedforward="silu", convolution=5, convolution_norm="group", rotary=1),
}
#: Each objective, and its terms that are sums over samples.
OBJECTIVES: dict[str, tuple[Callable[[], Objective], tuple[str, ...]]] = {
    "wav2vec 2.0": (lambda: MaskedContrastive(GumbelQuantiser(2, 5, 6), width=7), ("contrastive",)),
    "BigSSL": (lambda: MaskedContrastive(None, width=7), ("contrastive",)),
    "HuBERT": (lambda: MaskedPrediction(width=7), ("masked",)),
    "BEST-RQ": (lambda: MaskedPrediction(RandomQuantiser(11, 3), width=None), ("masked",)),
    "data2vec": (lambda: LatentRegression(2), ("regression",)),
    "UniSpeech": (
        lambda: ContrastiveCTC(MaskedContrastive(GumbelQuantiser(2, 5, 6), width=7)),
        ("contrastive", "ctc"),
    ),
    "CTC": (CTC, ("ctc",)),
    "classify": (lambda: LayerClassification([0.1, 1.0]), ("ce",)),
}


def built(front: str, objective: Objective) -> Model:
    encoder = Encoder(WIDTH, 2, 2, block=BLOCKS[front])
    teacher = Teacher(tokenizers="shared") if isinstance(objective, LatentRegression) else None
    model = Model({"audio": FRONT_ENDS[front]()}, encoder, {"it": objective}, teacher=teacher)
    model.build({"train": "audio"}, {"audio": FACTS})
    return model.double().eval()


def clips(model: Model) -> list[View]:
    """Each clip in a view of its own, with a mask, units, a text and a label."""
    draw, views = torch.Generator().manual_seed(3), []
    for number, length in enumerate(LENGTHS):
        frames = model.tokenizers["audio"].num_tokens((length,))
        units = torch.randint(UNITS, (frames,), generator=draw)
        text = torch.tensor([[1, 2, 2], [3], [], [2]][number], dtype=torch.long)
        view = View(
            "audio",
            [torch.randn(length, generator=draw).double()],
            masked=torch.rand(frames, generator=draw) < 0.6,
            targets={"label": torch.tensor([number % 3])},
            ragged={"units": [units], "text": [text]},
        )
        views.append(view)
    return views


def joined(views: list[View]) -> View:
    return replace(
        views[0],
        data=[view.data[0] for view in views],
        masked=torch.cat([view.masked for view in views]),
        targets={"label": torch.cat([view.targets["label"] for view in views])},
        ragged={name: [view.ragged[name][0] for view in views] for name in ("units", "text")},
    )


@pytest.mark.parametrize("front", FRONT_ENDS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_packed_is_one_by_one(name: str, front: str) -> None:
    make, terms = OBJECTIVES[name]
    if name == "BEST-RQ" and front != "log-mel":
        pytest.skip("a waveform's frames have no source to quantise")
    model = built(front, make())
    alone = clips(model)
    whole = joined(alone)
    read = Read("train")
    together = model.encode({"train": whole}, [read])[read].values
    apart = torch.cat([model.encode({"train": view}, [read])[read].values for view in alone])
    torch.testing.assert_close(together, apart)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def summed(view: View) -> Tensor:
        found = model({"train": view}).terms
        return torch.stack([found[f"it/{term}"].sum for term in terms]).sum()

    losses = summed(whole), torch.stack([summed(view) for view in alone]).sum()
    torch.testing.assert_close(*losses)
    assert losses[0] > 0
    gradients = [torch.autograd.grad(loss, parameters, allow_unused=True) for loss in losses]
    assert sum(gradient is not None for gradient in gradients[0]) > 10
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)
