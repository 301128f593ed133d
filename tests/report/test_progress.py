import io

from rich.console import Console

from kdjax.report.progress import Progress


def _progress(terminal, interval):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with Progress(4, label="bdkd [x]", console=console, interval=interval) as progress:
        for step in range(1, 5):
            progress.update(step, {"loss": 1 / step, "accuracy": 0.5}, 1234.5)
        progress.say("saved [bold]checkpoint[/bold] 4")
    return out.getvalue()


def test_progress_without_a_terminal_prints_plain_lines():
    lines = _progress(terminal=False, interval=1e9).splitlines()
    assert lines[0] == "bdkd [x]  step 1/4  loss 1  accuracy 0.5  1,234 images/s"
    assert lines[1].startswith("bdkd [x]  step 4/4  loss 0.25  accuracy 0.5")
    assert lines[1].endswith("left")
    assert lines[2:] == ["saved [bold]checkpoint[/bold] 4"]
    assert len(_progress(terminal=False, interval=0.0).splitlines()) == 5


def test_progress_that_stops_early_reports_the_step():
    out = io.StringIO()
    with Progress(9, label="a", console=Console(file=out)) as progress:
        progress.update(1, {}, 1.0)
        progress.update(2, {}, 1.0)
    assert [line.split("  ")[1] for line in out.getvalue().splitlines()] == ["step 1/9", "step 2/9"]


def test_progress_on_a_terminal_shows_a_bar():
    text = _progress(terminal=True, interval=10.0)
    assert "4/4" in text
    assert "bdkd [x]" in text
    assert "saved [bold]checkpoint[/bold] 4" in text
