"""The report: complete, offline, and with every foreign name escaped."""

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import learnmech as lm
from learnmech.errors import StorageError
from learnmech.report import render_report, write_report

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def evil_history():
    """A net whose layers have markup for names, watched for a few steps."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.arange(40) % 4
    net = nn.Sequential()
    net.add_module(EVIL, nn.Linear(6, 8))
    net.add_module("</script><script>alert(2)</script>", nn.ReLU())
    net.add_module("second & last", nn.Linear(8, 8))
    net.add_module("a\"b'c", nn.Tanh())
    net.add_module("readout", nn.Linear(8, 4))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    with lm.watch(
        net, (x, y), functional.cross_entropy, optimizer=optimizer, every=5, held_out=(x, y), config={"data": EVIL}
    ) as monitor:
        for _ in range(15):
            optimizer.zero_grad()
            functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    return monitor.history


class Checker(HTMLParser):
    """Collects tags, and that those which must be closed are."""

    def __init__(self):
        super().__init__()
        self.tags, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def outside_scripts(text: str) -> str:
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_page_is_whole_and_offline(evil_history):
    text = render_report(evil_history)
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in checker.tags
    for tag, attributes in checker.tags:
        assert "src" not in attributes, (tag, attributes)  # nothing is fetched
        assert tag not in ("img", "link", "iframe")
    for part in ("load_curve", "contributions", "shape", "loss", "layers", "settings", "cite"):
        assert f'id="{part}"' in text


def test_foreign_names_are_escaped(evil_history):
    text = render_report(evil_history, title=EVIL)
    assert EVIL not in text
    assert html.escape(EVIL) in outside_scripts(text)
    assert "alert(2)</script>" not in text
    plots = "".join(re.findall(r"Plotly\.newPlot.*?</script>", text, flags=re.DOTALL))
    assert "onerror=alert(1)&gt;" in plots or "onerror=alert(1)\\u0026gt;" in plots  # literal text for plotly
    assert "<img" not in plots


def test_slider_has_a_frame_for_every_probe(evil_history):
    figures = [f for i in lm.monitor.verdict.instruments_of(evil_history) for f in i.figures(evil_history)]
    curve = next(figure for figure in figures if figure.name == "load_curve").plot
    steps = curve.layout.sliders[0].steps
    assert [step.label for step in steps] == ["0", "5", "10", "15"]
    shown = [[trace for trace, flag in zip(curve.data, step.args[0]["visible"], strict=True) if flag] for step in steps]
    for position, traces in enumerate(shown):
        probe = next(trace for trace in traces if trace.name == "probe")
        np.testing.assert_allclose(np.array(probe.y, dtype=float), evil_history["load"].values[position])


def test_report_of_a_dead_run(evil_history):
    broken = evil_history.copy(deep=True)
    for name in broken.data_vars:
        broken[name][-1] = np.nan
    text = render_report(broken)
    assert "the loss is not a number" in text
    for name in broken.data_vars:
        broken[name][:] = np.nan
    assert "not measurable" in render_report(broken)


def test_written_in_one_step(evil_history, tmp_path):
    path = write_report(evil_history, tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not write"):
        write_report(evil_history, tmp_path / "file" / "report.html")
