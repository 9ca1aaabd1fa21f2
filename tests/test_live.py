"""Live figures: every control moves the picture, nothing is swallowed, the picture can be read."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("anywidget")
from PIL import Image

from lietoolkit import live, plots

EXPLORERS = [name for name in live.__all__ if name.startswith("explore_")]


@pytest.fixture(autouse=True)
def _fresh_errors():
    live.ERRORS.clear()
    yield
    live.ERRORS.clear()


def pixels(figure: live.LiveFigure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure.canvas.png)))


def extremes(control) -> list:
    if hasattr(control, "options"):
        return list(control.options)
    if isinstance(control.value, bool):
        return [True, False]
    if hasattr(control, "base"):
        return [control.base**control.min, control.base**control.max]
    return [control.min, control.max]


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_control_moves_the_picture(name: str) -> None:
    figure = getattr(live, name)()
    first = figure.alt
    assert len(first) > 40
    for key, control in figure.controls.items():
        assert control.description, key
        old, pictures = control.value, []
        for value in extremes(control):
            figure.set(**{key: value})
            assert not figure.errors
            pictures.append(figure.canvas.png)
        assert len(set(pictures)) > 1, f"{key} changes nothing"
        figure.set(**{key: old})
    assert figure.alt == first == figure.canvas.alt


@pytest.mark.parametrize("name", EXPLORERS)
def test_one_output_is_alive_a_picture_and_text(name: str) -> None:
    figure = getattr(live, name)()
    data, metadata = figure._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert image.size == figure._agg.get_width_height()
    assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 8
    assert metadata["image/png"]["alt"] == data["text/plain"] == figure.alt
    assert len(data["image/png"]) < 60_000


def test_redraw_equals_drawing_anew() -> None:
    figure = live.explore_flows(t=0.2)
    figure.set(t=0.8)
    difference = np.abs(pixels(figure).astype(int) - pixels(live.explore_flows(t=0.8)).astype(int))
    assert difference.max() <= 2
    assert (pixels(figure) == np.asarray(figure._agg.buffer_rgba())[:, :, :3]).all()


def test_errors_are_shown_and_kept() -> None:
    from lietoolkit.live.controls import slider

    def update(x: float) -> str:
        if x > 0.5:
            raise ValueError("too <large>")
        return "fine"

    drawn, _ = live.new_figure((2, 2))
    figure = live.LiveFigure(drawn, update, {"x": slider("x", 0, 1, 0.2)})
    figure.controls["x"].value = 0.9
    assert figure.errors == live.ERRORS == ["ValueError: too <large>"]
    assert "too &lt;large&gt;" in figure._message.value
    assert 'role="alert"' in figure._message.value
    figure.controls["x"].value = 0.1
    assert figure._message.value == ""
    assert len(live.ERRORS) == 1


def test_the_first_frame_raises() -> None:
    def update() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        live.LiveFigure(live.new_figure((2, 2))[0], update)


def test_dragging_sets_the_controls() -> None:
    figure = live.explore_flows()
    axes = figure.drag[0]
    width, height = figure._agg.get_width_height()
    x, y = axes.transData.transform((-0.5, 1.0))
    figure.canvas.point = [float(x / width), float(1 - y / height)]
    assert figure.values["x"] == pytest.approx(-0.5, abs=0.03)
    assert figure.values["y"] == pytest.approx(1.0, abs=0.03)
    figure.canvas.point = [0.0, 0.0]
    assert figure.values["x"] == figure.controls["x"].min
    assert not figure.errors


def test_picture_takes_the_alt_text_of_the_plot() -> None:
    figure = live.picture(plots.score_bars, {"a": -2e-3, "b": 2e-3}, ["a", "b"])
    data, _ = figure._repr_mimebundle_()
    assert data["text/plain"].startswith("Pull of each source")
    assert not any(kind.startswith("application") for kind in data)


def test_importing_the_course_loads_no_figures() -> None:
    code = "import lietoolkit.course, sys, json; print(json.dumps(list(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(out.stdout))
    assert not loaded & {"matplotlib", "ipywidgets", "anywidget", "transformers"}
