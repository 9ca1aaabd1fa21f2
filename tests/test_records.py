"""Results of a longer run are kept with their command and shown on the page."""

import json

import nbformat
import pytest

from lietoolkit.course import places, recorded
from lietoolkit.course.records import keep


@pytest.fixture
def executed(tmp_path):
    """An executed notebook with a result, a cell that prints nothing, a bet and an old record."""
    stdout = nbformat.v4.new_output("stream", name="stdout", text="loss 1.5\nrank 1\n")
    old = nbformat.v4.new_output("stream", name="stdout", text="an older run\n")

    def cell(source, *outputs):
        return nbformat.v4.new_code_cell(source, outputs=list(outputs))

    cells = [
        nbformat.v4.new_markdown_cell("# Title\n\n## Train"),
        cell("train()", stdout),
        cell("draw()"),
        cell('course.reveal("07.x", 1)', old),
        nbformat.v4.new_markdown_cell("## The same"),
        cell('course.recorded("07")', old),
    ]
    path = tmp_path / "07_x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_what_was_kept_is_shown(executed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(places, "course_folder", lambda: tmp_path)
    folder = places.recorded_folder()
    path = keep(executed, folder, "07", {"profile": "laptop", "seed": 3})
    kept = json.loads(path.read_text())
    assert kept["command"] == "lietoolkit course run 07 -p profile laptop -p seed 3 --record"
    assert kept["cells"] == [{"heading": "Train", "text": "loss 1.5\nrank 1\n"}]
    recorded("07")
    shown = capsys.readouterr().out
    assert kept["date"] in shown and kept["command"] in shown
    assert "Train\n    loss 1.5\n    rank 1\n" in shown


def test_a_run_that_was_not_kept_says_how(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(places, "course_folder", lambda: tmp_path)
    recorded("07", "gpu")
    assert "lietoolkit course run 07 -p profile gpu --record" in capsys.readouterr().out
