"""The commands of speech alone, as `commands.py` has those of all."""

from __future__ import annotations

from ..tokenizers.errors import UserError
from .command import (
    AUDIO,
    JSON,
    RUN,
    TRUST,
    Command,
    Option,
    Options,
    Overrides,
    folder,
    mfcc,
    on_run,
    positive,
    whole,
)


def _manifest(options: Options, overrides: Overrides) -> None:
    roots = options.pop("roots")
    from .speech.check import manifest_command

    manifest_command(roots, **options)


def _cluster(options: Options, overrides: Overrides) -> None:
    run, paths = options.pop("run"), options.pop("data_path")
    from .speech.cluster import cluster_command

    cluster_command(paths, None if run is None else folder(run), **options)


def _transcribe(options: Options, overrides: Overrides) -> None:
    if options["lm_weight"] is None:
        del options["lm_weight"]  # the command has its own
    elif options["lm"] is None:
        raise UserError(
            f"--lm-weight is of a language model, but {options['lm_weight']:g} comes without --lm"
        )
    on_run("speech.transcribe:transcribe_command", "data_path")(options, overrides)


PHONES = (
    Option("phones", "FILE", "CSV (path, start, end, phone; seconds) or folder of TextGrids", required=True),
    Option("tier", "NAME", "of the TextGrids", default="phones"),
)

SPEECH = (
    Command(
        "manifest",
        "list the audio files of folders, with their durations, after a check of each",
        (
            Option(
                "roots", "DIR", "folder of audio, or a manifest", positional=True, repeat=True, required=True
            ),
            Option("output", "FILE", "CSV, TSV, JSONL or Parquet file to write", default="manifest.csv"),
            JSON,
        ),
        "triptych manifest recordings more/recordings --output manifest.csv",
        _manifest,
    ),
    Command(
        "cluster",
        "units of audio frames by k-means, which HuBERT learns to predict",
        (
            Option("data.path", "AUDIO", "folders, manifests or files", required=True, repeat=True),
            Option("run", "RUN", "cluster the tokens of this run"),
            Option("layer", "N", "block of the run, counted from 1 (default: the last, normalised)", whole),
            Option("features", "mfcc", "cluster MFCC instead of a run's tokens", mfcc),
            Option("rate", "HZ", "of the audio for MFCC (default: 16000)", whole),
            Option("clusters", "K", "number of units", whole, 100),
            Option("output", "FILE", "Parquet file to write, for data.units", default="units.parquet"),
            JSON,
            TRUST,
        ),
        "triptych cluster --run runs/hubert-1 --layer 3 --data.path recordings --clusters 500",
        _cluster,
    ),
    Command(
        "transcribe",
        "what is said in audio, with the times of the words",
        (
            RUN,
            AUDIO,
            Option("output", "FILE", "manifest to write: CSV, TSV, JSONL or Parquet (default: print)"),
            Option("chunk", "SECONDS", "longer audio is heard in overlapping chunks", positive, 30.0),
            Option("beam", "N", "paths kept by a beam search (default: greedy decoding)", whole),
            Option("lm", "FILE", "KenLM model of words (ARPA) for the beam search"),
            Option("lm-weight", "W", "of the language model (default: 2)", positive),
            JSON,
            TRUST,
        ),
        "triptych transcribe --run runs/ctc-1 --data.path talk.mp3 calls --output transcripts.csv",
        _transcribe,
    ),
    Command(
        "evaluate abx",
        "whether frames of each layer tell phones apart, by ABX within and across voices",
        (
            RUN,
            *PHONES,
            Option("items", "N", "of one phone of one voice, drawn at random", whole, 5),
            JSON,
            TRUST,
        ),
        "triptych evaluate abx --run runs/hubert-1 --data.path recordings --phones phones.csv",
        on_run("speech.phone_command:abx_command", "overrides"),
        ("data",),
    ),
    Command(
        "evaluate units",
        "what k-means units of each layer tell of phones: PNMI and purity",
        (
            RUN,
            *PHONES,
            Option("clusters", "K", "number of units", whole, 100),
            JSON,
            TRUST,
        ),
        "triptych evaluate units --run runs/hubert-1 --data.path recordings --phones alignments",
        on_run("speech.phone_command:units_command", "overrides"),
        ("data",),
    ),
    Command(
        "align",
        "when each word of known texts is said",
        (
            RUN,
            AUDIO,
            Option("output", "DIR", "folder for words.csv and TextGrids", default="alignment"),
            Option("plot", "FILE", "picture of the first clips with their words and letters"),
            JSON,
            TRUST,
        ),
        "triptych align --run runs/ctc-1 --data.path manifest.csv --output alignment",
        on_run("speech.transcribe:align_command", "data_path"),
    ),
)
