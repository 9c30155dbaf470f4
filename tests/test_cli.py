"""The command line front: help at once, words checked, mistakes as one sentence, the right call made."""

import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from triptych import cli
from triptych.cli import main
from triptych.tasks import trust as trusting
from triptych.tasks.command import Options
from triptych.tasks.commands import COMMANDS
from triptych.tokenizers.errors import UserError

HEAVY = {"torch", "lightning", "jsonargparse", "numpy", "pandas", "rich", "yaml"}
LIGHT_WORDS = [
    [],
    ["--version"],
    ["fti"],
    ["evaluate"],
    ["fit"],
    ["fit", "--confg", "x"],
    *([*command.name.split(), "--help"] for command in COMMANDS),
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that passes for a run directory, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("runs/dino-1").mkdir(parents=True)
    Path("runs/dino-1/config.yaml").write_text("seed: 1\n")
    return "runs/dino-1"


def front(*words: str) -> subprocess.CompletedProcess[str]:
    """The console script as a fresh process."""
    return subprocess.run([sys.executable, "-m", "triptych.cli", *words], capture_output=True, text=True)


def words(line: str) -> list[str]:
    return line.split()


def spoken(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence of a mistake, without its prefix."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err.removeprefix("triptych: error: ").rstrip("\n")


def processor_seconds() -> float:
    """Processor time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_answers_at_once(command: Any, record_property: Any) -> None:
    seconds = []
    for _ in range(3):
        began = processor_seconds()
        result = front(*command.name.split(), "--help")
        seconds.append(processor_seconds() - began)
        assert result.returncode == 0 and command.example in result.stdout
    print(f"{command.name} --help: {min(seconds):.3f} s")
    # the processor's time, for the clock's counts how long a busy machine makes it wait
    assert min(seconds) < 0.2


@pytest.mark.parametrize("words", LIGHT_WORDS, ids=" ".join)
def test_nothing_heavy_is_imported_to_answer(words: list[str]) -> None:
    script = (
        "import sys; from triptych.cli import main; main(sys.argv[1:]);"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
    )
    loaded = set(result.stderr.splitlines()[-1].split())
    assert "triptych" in loaded and not loaded & HEAVY


def test_a_config_that_is_missing_is_named_without_heavy_imports() -> None:
    """Listing the configs, too, imports nothing heavy."""
    script = (
        "import sys; from triptych.cli import main; assert main(['fit', '--config', 'zzz']) == 2;"
        "assert main(['configs']) == 0; assert not {'torch', 'jsonargparse'} & sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stderr.startswith("triptych: error: no packaged config and no file is called 'zzz'")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_option_is_in_the_help_and_every_example_parses(command: Any) -> None:
    text = cli.command_help(command)
    assert all(option.flag in text and option.help.split()[0] in text for option in command.options)
    words = command.example.partition(" > ")[0].split()[1:]
    found, rest = cli.find_command(words)
    assert found is command
    cli.parse(command, rest)


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert main(words) == 0
        text = capsys.readouterr().out
        assert all(f"  {command.name} " in text for command in COMMANDS)
    assert main(["evaluate", "--help"]) == 0
    assert "evaluate linear" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("triptych 0.")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("fti", "unknown command 'fti'; did you mean 'fit'?"),
        ("zzzzz", "unknown command 'zzzzz'; `triptych --help` lists them"),
        (
            "evaluate knm",
            "expected `triptych evaluate` to be followed by abx or finetune or knn or linear or segmentation "
            "or units, but got 'knm'",
        ),
        ("fit", "`triptych fit` needs --config NAME; `triptych configs` lists the packaged ones"),
        ("fit --confg x", "`triptych fit` has no option --confg; did you mean '--config'?"),
        ("fit --modle.depth 3", "`triptych fit` has no option --modle.depth; did you mean '--model'?"),
        ("fit --data x", "`triptych fit` has no option --data; write --data.KEY VALUE"),
        (
            "fit --config",
            "the option --config needs a value, packaged config or YAML file; later ones override",
        ),
        (
            "fit --config --seed",
            "the option --config needs a value, packaged config or YAML file; later ones override",
        ),
        ("fit --seed", "the option --seed needs a value"),
        ("fit vision/dino", "`triptych fit` did not expect 'vision/dino'; options start with --"),
        ("evaluate knn --run r --k many", "expected --k to be a whole number of at least 1, but got 'many'"),
        ("evaluate knn --run r --k 0", "expected --k to be a whole number of at least 1, but got '0'"),
        (
            "evaluate knn --run r --temperature -1",
            "expected --temperature to be a number above 0, but got '-1'",
        ),
        (
            "evaluate linear --run r --head deep",
            "expected --head to be linear or nonlinear, but got 'deep'",
        ),
        ("embed", "`triptych embed` needs --run RUN: run directory, as `fit` writes it"),
        ("embed --run runs/dino-2", "no run directory 'runs/dino-2'; did you mean 'runs/dino-1'?"),
        ("embed --run runs", "expected a run directory, but 'runs' has no config.yaml"),
        ("fit --resume zzz", "no run directory 'zzz'"),
        (
            "transcribe --run r --beam 9 --lm-weight 3",
            "--lm-weight is of a language model, but 3 comes without --lm",
        ),
        (
            "cluster --data.path d --features mfcc --layer 3",
            "--layer is of a --run, and MFCC have none, but got --layer 3",
        ),
        (
            "cluster --data.path d --run runs/dino-1 --rate 44100",
            "--rate is of --features mfcc, and a run has its own, but got --rate 44100",
        ),
        ("doctor now", "`triptych doctor` did not expect 'now'; options start with --"),
        ("doctor --json x", "`triptych doctor` has no option --json"),
        (
            "configs zzz",
            "no packaged config and no file is called 'zzz'; `triptych configs` lists the packaged ones",
        ),
        (
            "fit --config a --trust a-b",
            "expected --trust to name a package such as my_package, but got 'a-b'",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    line: str, sentence: str, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert spoken(capsys, *line.split()) == sentence


def test_options_and_overrides_are_told_apart() -> None:
    command = next(command for command in COMMANDS if command.name == "fit")
    line = "--config a --config=b --model.objectives.dino.weight 2 --data.path=a=b --trainer.lr -1 --seed 3"
    options, overrides = cli.parse(command, line.split())
    assert options["config"] == ("a", "b") and options["output"] is None
    assert overrides == {
        "model.objectives.dino.weight": "2",
        "data.path": "a=b",
        "trainer.lr": "-1",
        "seed": "3",
    }


RUN = "--run runs/dino-1"


@pytest.mark.parametrize(
    ("line", "target", "arguments", "options"),
    [
        (f"validate {RUN}", "fit:run_stage", ("validate", "runs/dino-1", {}), {}),
        (f"test {RUN} --data.path D", "fit:run_stage", ("test", "runs/dino-1", {"data.path": "D"}), {}),
        (
            f"predict {RUN} --output o.csv",
            "fit:run_stage",
            ("predict", "runs/dino-1", {}),
            {"output": "o.csv"},
        ),
        (
            f"evaluate knn {RUN} --k 5 --data.path D --json f",
            "evaluate:knn",
            ("runs/dino-1", {"data.path": "D"}),
            {"k": 5, "temperature": 0.07, "pool": "auto", "beside": None, "json": "f"},
        ),
        (
            f"evaluate linear {RUN} --pool mean",
            "evaluate:linear",
            ("runs/dino-1", {}),
            {
                "head": "linear",
                "pool": "mean",
                "blocks": None,
                "epochs": 100,
                "seeds": 3,
                "beside": None,
                "json": None,
            },
        ),
        (
            f"evaluate finetune {RUN} --seeds 2 --trainer.max_epochs 3",
            "evaluation.finetune:finetune",
            ("runs/dino-1", {"trainer.max_epochs": "3"}),
            {"config": None, "seeds": 2, "output": None, "json": None},
        ),
        (
            f"evaluate segmentation {RUN} --masks alpha --beside B",
            "vision.segment:segmentation",
            ("runs/dino-1", {}),
            {"masks": "alpha", "numbers": "objects", "share": 0.6, "beside": "B", "json": None},
        ),
        (
            f"evaluate abx {RUN} --phones p.csv --data.path D --items 3",
            "speech.phone_command:abx_command",
            ("runs/dino-1", {"data.path": "D"}),
            {"phones": "p.csv", "tier": "phones", "items": 3, "json": None},
        ),
        (
            f"transcribe {RUN} --data.path a.wav --beam 9",
            "speech.transcribe:transcribe_command",
            ("runs/dino-1", ("a.wav",)),
            {"output": None, "chunk": 30.0, "beam": 9, "lm": None, "json": None},
        ),
        (
            f"transcribe {RUN} --lm w.arpa --lm-weight 3",
            "speech.transcribe:transcribe_command",
            ("runs/dino-1", ()),
            {"output": None, "chunk": 30.0, "beam": None, "lm": "w.arpa", "lm_weight": 3.0, "json": None},
        ),
        (
            f"attend {RUN} --data.path a.png --data.path b.png --data.size 32",
            "vision.attend:attend",
            ("runs/dino-1", {"data.size": "32"}, ("a.png", "b.png")),
            {"output": "attention", "layer": None, "count": 12},
        ),
        (
            f"forecast {RUN} --data.path t.csv --data.time when --horizon 24 --intervals split --plot p.png",
            "series.forecast:forecast_command",
            ("runs/dino-1", "t.csv", {"data.time": "when"}),
            {"horizon": 24, "intervals": "split", "output": "forecast.csv", "plot": "p.png", "json": None},
        ),
        (
            f"embed {RUN} --layer 2",
            "embed:embed_command",
            ("runs/dino-1", {}),
            {"output": "embeddings.parquet", "layer": 2, "pool": "auto", "json": None},
        ),
        (f"report {RUN}", "report:report", ("runs/dino-1", None), {}),
        ("doctor", "doctor:doctor", (), {}),
        ("demo --output o", "demo:demo", ("o",), {}),
    ],
)
def test_commands_call_what_they_name(
    line: str,
    target: str,
    arguments: tuple[Any, ...],
    options: Options,
    run: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stand-in has the signature of the real function, so that a change there is noticed here."""
    module, name = target.split(":")
    module = import_module(f"triptych.tasks.{module}")
    called = create_autospec(getattr(module, name))
    monkeypatch.setattr(module, name, called)
    assert main(line.split()) == 0
    called.assert_called_once_with(
        *arguments, **{key: value for key, value in options.items() if key != "trust"}
    )


def test_fit_gets_the_merged_config(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from triptych.tasks import fit as fitting

    called = create_autospec(fitting.fit)
    monkeypatch.setattr(fitting, "fit", called)
    Path("mine.yaml").write_text("trainer: {max_epochs: 2}\n")
    assert main(words("fit --config mine.yaml --seed 3 --output runs/new --init runs/dino-1")) == 0
    (config,), options = called.call_args
    assert config.values == {"trainer": {"max_epochs": 2}, "seed": 3} and config.name == "mine"
    assert options == {"output": "runs/new", "resume": None, "init": "runs/dino-1"}
    assert main(words("fit --resume runs/dino-1 --trainer.max_epochs 9")) == 0
    (config,), options = called.call_args
    assert config.values == {"seed": 1, "trainer": {"max_epochs": 9}} and options["resume"] == "runs/dino-1"


def test_trust_is_given_on_the_command_line(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusting, "TRUSTED", list(trusting.TRUSTED))
    main(words("embed --run zzz --trust my_house --trust other.house"))
    assert trusting.TRUSTED[-2:] == ["my_house", "other.house"]


class LightningLike(Exception):
    """An exception that says it is Lightning's."""


LightningLike.__module__ = "lightning.fabric.utilities.exceptions"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UserError("a\n  b"), "a b"),
        (LightningLike("no such\naccelerator"), "no such accelerator"),
        (FileNotFoundError(2, "No such file or directory", "x"), "[Errno 2] No such file or directory: 'x'"),
    ],
)
def test_errors_about_what_was_given_exit_2(
    error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "dispatch", create_autospec(cli.dispatch, side_effect=error))
    assert spoken(capsys) == sentence
    monkeypatch.setenv("TRIPTYCH_DEBUG", "1")
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("Traceback")


def stopped(code: Any, cause: BaseException | None = None) -> SystemExit:
    stop = SystemExit(code)
    stop.__context__ = cause
    return stop


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), 130),
        (stopped(1, KeyboardInterrupt()), 130),
        (stopped(3), 3),
        (stopped(None), 0),
        (stopped("text"), 1),
    ],
)
def test_exit_statuses(error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "dispatch", create_autospec(cli.dispatch, side_effect=error))
    assert main([]) == status


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError("no file named")])
def test_a_bug_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "dispatch", create_autospec(cli.dispatch, side_effect=error))
    with pytest.raises(type(error)):
        main([])


def test_the_reader_may_stop_early() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-u", "-m", "triptych.cli", "--help"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


def test_configs_are_listed_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from triptych.tasks import config

    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "base.yaml").write_text("# Base: paper\n# 5 minutes\nseed: 1\nmodel: {a: 1}\n")
    (tmp_path / "vision" / "small.yaml").write_text(
        "# Small\n#\n# more\nextends: vision/base\nmodel: {b: 2}\n"
    )
    monkeypatch.setattr(config, "PACKAGED", tmp_path)
    assert main(["configs"]) == 0
    assert capsys.readouterr().out == "vision/base\tBase: paper\nvision/small\tSmall\n"
    assert main(["configs", "vision/small"]) == 0
    assert capsys.readouterr().out == "# Small\n#\n# more\nseed: 1\nmodel:\n  a: 1\n  b: 2\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["configs"]) == 0
    assert "│ vision/small │ Small" in capsys.readouterr().out


def test_doctor_tells_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from triptych.tasks import doctor

    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert torch.__version__.partition("+")[0] in text and "CPU attention" in text and "cores" in text
    monkeypatch.setattr(doctor, "tried_versions", lambda: {"torch": "0.0.1"})
    monkeypatch.setattr(doctor, "NEEDED", ("torch", "no-such-distribution"))
    rows = {row[0]: row[1:] for row in doctor.libraries()}
    assert rows["torch"][1] == "tried with 0.0.1"
    assert rows["no-such-distribution"] == ("-", "MISSING: install triptych again")


def test_the_tried_versions_are_read_from_the_constraints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triptych.tasks import doctor

    pins = tmp_path / "constraints.txt"
    pins.write_text("# a==0\nTorch==2.14.1+cpu ; python_version > '3'\n\nrich==15\n")
    monkeypatch.setattr(doctor, "CONSTRAINTS", pins)
    assert doctor.tried_versions() == {"torch": "2.14.1", "rich": "15"}
