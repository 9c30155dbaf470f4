"""A step of wav2vec 2.0 on clips of real lengths beside Hugging Face's padded model: time, memory, loader.

    python benchmarks/speech_step.py [--rounds 9] [--threads 1] [--data FOLDER]

Names of stamps and Dutch dialogues at 16 kHz mixed (`speech_data.py` makes them), 60 s of audio a step, 4
blocks of width 256 behind convolutions of 128 channels, group norm, post-norm, 100 negatives. Both models
hear the same batches and masks and take turns; theirs are padded, and their negatives are drawn beforehand.
Random batches: at most .65 of their time (goal .5). Batches of like length: at most 1.0. Peak memory is that
of three steps above what there was before, each model in a process of its own. The loader: share of the time
that it takes, over clips that are in memory (less than .05) and in the first pass, which decodes them. Takes
15 minutes of one processor.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from encoder_speed import measure, medians, ratios
from record import write
from speech_data import FOLDER, prepare
from torch import Tensor, nn
from torch.optim import AdamW
from triptych.backbones.encoder import BlockOptions, Encoder
from triptych.objectives.masked_contrastive import MaskedContrastive
from triptych.objectives.quantiser import GumbelQuantiser
from triptych.tasks.model import Model
from triptych.tasks.speech.data import Audio
from triptych.tasks.speech.masks import SpanMask
from triptych.tasks.speech.sampling import Sampling
from triptych.tasks.speech.views import AudioView
from triptych.tokenizers.audio import Positions
from triptych.tokenizers.audio_waveform import WaveformFrames
from triptych.tokenizers.view import View

RATE, SECONDS, WIDTH, DEPTH, HEADS = 16000, 60.0, 256, 4, 4
CHANNELS, CODES, SPACE, NEGATIVES = 128, 64, 128, 100
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
KERNEL, GROUPS = 64, 16
OURS, THEIRS = "triptych", "transformers"
#: Kinds of length in a batch, by what such batches are called; the goal of each.
BUCKETS, GOALS = {"random": 1, "bucketed": 8}, {"random": 0.65, "bucketed": 1.0}
WAIT = 0.05
#: Steps in whose course the memory is read.
MEASURED = 3


def own() -> Model:
    """Triptych's, built for audio at 16 kHz."""
    convolutions = [(CHANNELS, kernel, stride) for kernel, stride in zip(KERNELS, STRIDES, strict=True)]
    frames = WaveformFrames(convolutions, norm="group", positions=Positions(KERNEL, GROUPS))
    encoder = Encoder(WIDTH, DEPTH, HEADS, block=BlockOptions(norm_first=False))
    quantiser = GumbelQuantiser(2, CODES, SPACE)
    objective = MaskedContrastive(quantiser, SPACE, NEGATIVES, penalty=0.0)
    model = Model({"audio": frames}, encoder, {"wav2vec2": objective})
    model.build({"train": "audio"}, {"audio": {"rate": RATE}})
    return model.train()


def original() -> nn.Module:
    """Hugging Face's of the same sizes, without dropout."""
    import transformers

    config = transformers.Wav2Vec2Config(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
        conv_dim=(CHANNELS,) * len(KERNELS), conv_kernel=KERNELS, conv_stride=STRIDES,
        num_conv_pos_embeddings=KERNEL, num_conv_pos_embedding_groups=GROUPS,
        num_codevectors_per_group=CODES, codevector_dim=SPACE, proj_codevector_dim=SPACE,
        num_negatives=NEGATIVES, hidden_dropout=0.0, activation_dropout=0.0, attention_dropout=0.0,
        feat_proj_dropout=0.0, feat_quantizer_dropout=0.0, layerdrop=0.0,
    )  # fmt: skip
    return transformers.Wav2Vec2ForPreTraining(config).train()


def padded(view: View, frames: Callable[[int], int]) -> dict[str, Tensor]:
    """A batch as Hugging Face's model takes it, with negatives of the same utterance."""
    from transformers.models.wav2vec2.modeling_wav2vec2 import _sample_negative_indices

    assert view.masked is not None
    lengths = [len(wave) for wave in view.data]
    values = nn.utils.rnn.pad_sequence(list(view.data), batch_first=True)
    heard = torch.arange(values.shape[1]) < torch.tensor(lengths).unsqueeze(1)
    counts = [frames(length) for length in lengths]
    masks = nn.utils.rnn.pad_sequence(list(view.masked.split(counts)), batch_first=True)
    drawn = _sample_negative_indices(tuple(masks.shape), NEGATIVES, masks.numpy())
    return {
        "input_values": values,
        "attention_mask": heard.long(),
        "mask_time_indices": masks,
        "sampled_negative_indices": torch.from_numpy(drawn).long(),
    }


def audio(folder: Path, kind: str, model: Model) -> Audio:
    """The clips, in batches of one kind."""
    paths = [str(folder / "tuxpaint.csv"), str(folder / "fillets.csv")]
    views = {"train": AudioView(mask=SpanMask())}
    data = Audio(paths, views, RATE, batch_seconds=SECONDS, sampling=Sampling(BUCKETS[kind]))
    data.attach(dict(model.tokenizers.items()))  # type: ignore[arg-type]
    data.setup()
    return data


def batches(folder: Path, kind: str, model: Model, count: int) -> list[View]:
    """The first batches of an epoch."""
    loader = audio(folder, kind, model).train_dataloader()
    return [batch["train"] for batch in islice(loader, count)]


def steps(model: nn.Module, losses: Iterator[Callable[[], Tensor]]) -> Callable[[], Tensor]:
    """One step a call: move the weights by the last gradients, then the next batch's loss."""
    optimizer = AdamW(model.parameters(), lr=1e-5)

    def run() -> Tensor:
        optimizer.step()
        optimizer.zero_grad()
        return next(losses)()

    return run


def contenders(views: list[View], ours: Model) -> dict[str, Callable[[], Tensor]]:
    """Both models, each hearing the batches in their order, again and again."""
    theirs, frames = original(), ours.tokenizers["audio"].num_tokens
    prepared = [padded(view, lambda length: frames((length,))) for view in views]  # type: ignore[operator]
    own_losses = (lambda view=view: ours({"train": view}).total for view in cycle(views))
    other_losses = (lambda batch=batch: theirs(**batch).loss for batch in cycle(prepared))
    return {OURS: steps(ours, own_losses), THEIRS: steps(theirs, other_losses)}


def peak(folder: Path, kind: str, name: str, found: Any) -> None:
    """Put into `found` the most memory of a few steps, in MB above what there was before them."""
    torch.set_num_threads(1)
    ours = own()
    step = contenders(batches(folder, kind, ours, MEASURED), ours)[name]
    before = status("VmRSS")
    for _ in range(MEASURED):
        step().backward()
    found.put((status("VmHWM") - before) / 1024)


def status(what: str) -> int:
    """A line of this process's memory, in kB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{what}:")).split()[1])


def memory(folder: Path, kind: str) -> dict[str, Any]:
    """Peak MB of both, each in its own process, and their ratio."""
    context = multiprocessing.get_context("spawn")
    peaks: dict[str, int] = {}
    for name in (OURS, THEIRS):
        queue = context.Queue()
        process = context.Process(target=peak, args=(folder, kind, name, queue))
        process.start()
        peaks[name] = round(queue.get())
        process.join()
    return {"megabytes": peaks, "ratio": round(peaks[OURS] / peaks[THEIRS], 3)}


def waits(folder: Path, model: Model, count: int) -> dict[str, float]:
    """Share of the processor time of so many training steps that loading takes: decoding, and from memory."""
    data = audio(folder, "bucketed", model)
    optimizer, shares = AdamW(model.parameters(), lr=1e-5), {}
    for name in ("first pass", "in memory"):
        loader = iter(data.train_dataloader())
        loading = training = 0.0
        for _ in range(count):
            begun = time.process_time()
            batch = next(loader)
            loaded = time.process_time()
            optimizer.zero_grad()
            model(batch).total.backward()
            optimizer.step()
            loading, training = loading + loaded - begun, training + time.process_time() - loaded
        shares[name] = round(loading / (loading + training), 4)
    return shares


def compared(folder: Path, kind: str, rounds: int) -> dict[str, Any]:
    """Time and memory of one kind of batches."""
    ours = own()
    views = batches(folder, kind, ours, rounds + 2)
    times = measure(contenders(views, ours), rounds)
    lengths = [[len(wave) for wave in view.data] for view in views]
    stuffing = [round(1 - sum(one) / (len(one) * max(one)), 3) for one in lengths]
    ratio = ratios(times, OURS, THEIRS)
    return {
        "goal": GOALS[kind],
        "met": ratio["processor_ratio"] <= GOALS[kind],
        **ratio,
        "median_seconds": medians(times),
        "padding": stuffing,
        "memory": memory(folder, kind),
        "rounds": times,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=FOLDER)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    folder = prepare(asked.data)
    figures: dict[str, Any] = {kind: compared(folder, kind, asked.rounds) for kind in BUCKETS}
    for kind, found in figures.items():
        told = f"{found['processor_ratio']} of their time (goal {found['goal']})"
        print(f"{kind} batches: {told}, {found['memory']['ratio']} of their memory", flush=True)
    shares = waits(folder, own(), asked.rounds)
    figures["loader"] = {"goal": WAIT, "met": shares["in memory"] < WAIT, **shares}
    print(f"loader: {shares}")
    print(f"written to {write('speech_step', figures, ('transformers', 'torchaudio', 'soundfile'))}")


if __name__ == "__main__":
    main()
