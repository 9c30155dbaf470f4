"""UniSpeech: both losses on one set of codes, frames replaced by them, clips without a text left to one."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from triptych.backbones.encoder import Encoder
from triptych.objectives.contrastive_ctc import ContrastiveCTC
from triptych.objectives.ctc import ctc_loss
from triptych.objectives.masked_contrastive import MaskedContrastive, diversity
from triptych.objectives.quantiser import GumbelQuantiser
from triptych.tasks.model import Model
from triptych.tokenizers.audio import Positions
from triptych.tokenizers.audio_waveform import WaveformFrames
from triptych.tokenizers.tokens import Tokens
from triptych.tokenizers.view import View

RATE, WIDTH, ALPHABET = 1000, 8, ["a", "b", "c"]
LENGTHS = (301, 170, 231)
TEXTS = ([1, 2, 2], [], [3, 1])


def model(norm: str = "group", **options: object) -> Model:
    tokenizer = WaveformFrames([(6, 20, 10), (6, 2, 2)], norm=norm, positions=Positions(3, 1))
    contrastive = MaskedContrastive(GumbelQuantiser(2, 5, 6), width=7)
    objective = ContrastiveCTC(contrastive, **options)
    built = Model({"audio": tokenizer}, Encoder(WIDTH, 2, 2), {"unispeech": objective})
    built.build({"train": "audio"}, {"audio": {"rate": RATE, "alphabet": ALPHABET}})
    return built


def view(built: Model, texts: tuple[list[int], ...] = TEXTS) -> View:
    draw = torch.Generator().manual_seed(3)
    frames = sum(built.tokenizers["audio"].num_tokens((length,)) for length in LENGTHS)
    return View(
        "audio",
        [torch.randn(length, generator=draw) for length in LENGTHS],
        masked=torch.rand(frames, generator=draw) < 0.6,
        ragged={"text": [torch.tensor(text, dtype=torch.long) for text in texts]},
    )


def alone(built: Model, whole: View) -> list[View]:
    frames = [built.tokenizers["audio"].num_tokens(wave.shape) for wave in whole.data]
    return [
        replace(whole, data=[wave], masked=mask, ragged={"text": [text]})
        for wave, mask, text in zip(whole.data, whole.masked.split(frames), whole.ragged["text"], strict=True)
    ]


def tokens_of(built: Model, whole: View) -> Tokens:
    (read,) = built.objective.reads()
    return built.encode({"train": whole}, [read])[read]


def test_half_of_each_and_diversity_over_all_frames() -> None:
    built = model(supervised=0.3).eval()
    whole, objective = view(built), built.objective["unispeech"]
    loss, tokens = built({"train": whole}), tokens_of(built, whole)
    emissions = list(objective.head(tokens.values).log_softmax(-1).split(tokens.lengths))
    spoken = [
        (frames, text) for frames, text in zip(emissions, whole.ragged["text"], strict=True) if len(text)
    ]
    ctc = ctc_loss(*map(list, zip(*spoken, strict=True))).sum() / 5
    contrast, _ = objective.contrastive.contrast(tokens)
    share = objective.contrastive.quantiser.logits(tokens.features).view(-1, 2, 5).softmax(-1).mean(0)
    energy = tokens.energy.mean()
    rest = contrast.loss.mean() + 0.1 * diversity(share) + 10 * energy
    torch.testing.assert_close(loss.total, 0.3 * ctc + 0.7 * rest)
    counts = built.objective.counts({"train": whole})
    frames = len(whole.masked)
    assert counts == {
        "unispeech/ctc": 5, "unispeech/contrastive": int(whole.masked.sum()), "unispeech/penalty": frames
    }  # fmt: skip
    assert {"accuracy", "code_perplexity", "left_out"} <= {name.rpartition("/")[2] for name in loss.metrics}


def test_codes_stand_in_for_chosen_frames() -> None:
    """Wang et al. 2021, section 3.3: r_t is q_t, brought to the width, with the given chance, else c_t."""
    objective = model().objective["unispeech"]
    values, vectors, chosen = torch.randn(3, WIDTH), torch.randn(3, 6), torch.tensor([True, False, True])
    found = objective.with_codes(values, vectors, chosen)
    assert torch.equal(found[1], values[1])
    for frame in (0, 2):
        compared = objective.contrastive.project_target.weight @ vectors[frame]
        compared = compared + objective.contrastive.project_target.bias
        expected = objective.project_codes.weight @ compared + objective.project_codes.bias
        torch.testing.assert_close(found[frame], expected)


@pytest.mark.parametrize(("replaced", "reads_encoder"), [(0.0, True), (1.0, False)])
def test_what_the_ctc_head_reads_in_training(replaced: float, reads_encoder: bool) -> None:
    built = model(replaced=replaced)
    loss = built({"train": view(built)}).terms["unispeech/ctc"].sum
    weight = built.encoder.blocks[0].mlp.fc1.weight
    codebook = built.objective["unispeech"].contrastive.quantiser.codebook
    of_encoder, of_codes = torch.autograd.grad(loss, [weight, codebook], allow_unused=True)
    assert (of_encoder is not None and bool(of_encoder.abs().max() > 0)) == reads_encoder
    assert (of_codes is not None and bool(of_codes.abs().max() > 0)) != reads_encoder


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_packed_is_one_by_one(norm: str) -> None:
    """In evaluation nothing is drawn: at these lengths every other masked frame is a negative."""
    built = model(norm).double().eval()
    whole = view(built)
    whole = replace(whole, data=[wave.double() for wave in whole.data])
    parameters = [p for p in built.parameters() if p.requires_grad]

    def sums(one: View) -> Tensor:
        terms = built({"train": one}).terms
        return terms["unispeech/ctc"].sum + terms["unispeech/contrastive"].sum

    together, apart = sums(whole), torch.stack([sums(one) for one in alone(built, whole)]).sum()
    torch.testing.assert_close(together, apart)
    pairs = zip(
        torch.autograd.grad(together, parameters, allow_unused=True),
        torch.autograd.grad(apart, parameters, allow_unused=True),
        strict=True,
    )
    for one, other in pairs:
        if one is not None:
            torch.testing.assert_close(one, other)


def test_without_any_text_the_contrastive_task_is_left() -> None:
    built = model()
    loss = built({"train": view(built, ([], [], []))})
    assert loss.terms["unispeech/ctc"].mean == 0 and loss.terms["unispeech/contrastive"].mean > 0
    assert loss.metrics["unispeech/left_out"] == 1


def test_the_loss_falls_and_the_texts_are_told() -> None:
    built = model(replaced=0.2)
    whole = view(built)
    optimiser = torch.optim.AdamW(built.parameters(), 0.01)
    losses = []
    for _ in range(120):
        optimiser.zero_grad()
        loss = built({"train": whole})
        loss.total.backward()
        optimiser.step()
        losses.append(loss.total.item())
    assert losses[-1] < 0.6 * losses[0]
    emissions = built.eval().predict(whole)
    frames = [built.tokenizers["audio"].num_tokens((length,)) for length in LENGTHS]
    assert [tuple(of_one.shape) for of_one in emissions] == [(count, 4) for count in frames]


def test_a_contrast_without_codes_is_refused() -> None:
    with pytest.raises(ValueError, match="quantiser must be given"):
        ContrastiveCTC(MaskedContrastive(None))
