"""The table that the demo ends with."""

import pytest
from triptych.tasks.panel import Row
from triptych.tasks.summary import Line, print_summary, summarise

ROWS = [
    Row("this run, class token", "accuracy", 0.9581, 0.932, 0.975, baseline=False),
    Row("this run, both", "accuracy", 0.961, baseline=False),
    Row("untrained encoder", "accuracy", 0.742),
    Row("this run", "code perplexity", 37.0, baseline=False),
    Row("raw pixels", "accuracy", 0.983),
]


def test_a_line_for_each_figure_of_the_run_with_its_baselines_once() -> None:
    assert summarise("vision/dino", 96.0, ROWS) == [
        Line(
            ("vision/dino", "1.6 minutes"),
            "accuracy, class token",
            "0.958",
            "0.932 to 0.975",
            ("0.742 untrained encoder", "0.983 raw pixels"),
        ),
        Line((), "accuracy, both", "0.961", "", ()),
        Line((), "code perplexity", "37.000", "", ()),
    ]


def test_the_table_is_readable_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_summary(summarise("vision/dino", 96.0, ROWS))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for whole in ("vision/dino", "1.6 minutes", "0.932 to 0.975", "0.983 raw"):
        assert whole in shown
