"""Figures draw what they say: the data behind the artists, not pixels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import style
from matplotlib.figure import Figure

from lietoolkit import plots
from lietoolkit.errors import InputError
from lietoolkit.statistics import rank_correlation, wilson_interval

NAMES = ["a", "b", "c"]
MATRIX = np.array([[0.0, -2e-4, 1e-4], [2e-4, 0.0, -3e-4], [-1e-4, 3e-4, 0.0]])
PLANE = ([0, 1, 2], [0, 1], [[1, 2, 3], [2, 3, 4]], [[0, 0], [1, 0], [1.1, 1]],
         [[0, 0], [0.1, 1], [1.09, 0.99]], ("a", "b"))  # fmt: skip

ALL = {
    "order_matrix": (plots.order_matrix, (MATRIX, NAMES, ["c", "a", "b"])),
    "score_bars": (plots.score_bars, ({"a": -1e-4, "b": -1e-4, "c": 2e-4},)),
    "predicted_vs_measured": (plots.predicted_vs_measured, ([1, -1, 2], [2, -1, -1], 0.1)),
    "verification_strip": (
        plots.verification_strip,
        ([3.0, 3.2, 3.1, 3.05], ["plan", "reverse", "random", "gradient norm, large first"]),
    ),
    "target_tradeoff": (plots.target_tradeoff, ({"t": -1e-3}, {"a": 1e-4, "b": -1e-4})),
    "confidence_bars": (plots.confidence_bars, ([("a", "b"), ("b", "c")], [0.95, 0.6])),
    "geometry_plane": (plots.geometry_plane, PLANE),
}


@pytest.fixture
def ax():
    return Figure(layout="constrained").subplots()


@pytest.mark.parametrize("name", ALL)
def test_returns_the_axes_it_was_given_and_describes_it(name, ax):
    draw, args = ALL[name]
    assert draw(*args, ax=ax) is ax
    text = plots.alt_text(ax)
    assert text.endswith(".") and any(c.isdigit() for c in text) and "nan" not in text
    assert plots.alt_text(ax.figure) == text


@pytest.mark.parametrize("name", ALL)
def test_makes_its_own_axes_and_follows_a_dark_style(name):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    draw, args = ALL[name]
    with style.context("dark_background"):
        ax = draw(*args)
        ax.figure.canvas.draw()
        assert ax.xaxis.label.get_color() == "white"
    plt.close(ax.figure)


def test_every_function_is_covered_here():
    assert set(ALL) == set(plots.__all__) - {"alt_text", "loss_text"}


def test_order_matrix_permutes_centers_and_writes_values(ax):
    plots.order_matrix(MATRIX, NAMES, ["c", "a", "b"], ax=ax)
    (image,) = ax.images
    where = [2, 0, 1]
    expected = MATRIX[np.ix_(where, where)] / 1e-4
    shown = image.get_array()
    np.testing.assert_allclose(shown.filled(0), expected, atol=1e-12)
    low, high = image.get_clim()
    assert low == -high == pytest.approx(-3.0)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["c", "a", "b"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("trained first", "trained second")
    values = {tuple(map(round, t.get_position())): t.get_text() for t in ax.texts}
    assert values[1, 0] == "−1.00"  # column a, row c: c first is better
    assert values[2, 1] == "−2.00"
    assert "3 pairs" in plots.alt_text(ax) and "b before c" in plots.alt_text(ax)


def test_large_matrix_marks_signs_without_text(ax):
    n = 10
    half = np.random.default_rng(0).normal(size=(n, n))
    names = [str(i) for i in range(n)]
    plots.order_matrix(half - half.T, names, ax=ax)
    assert sum(t.get_text() == "•" for t in ax.texts) == n * (n - 1) // 2


def test_order_matrix_refuses_what_does_not_fit(ax):
    with pytest.raises(InputError, match=r"expected shape \(2, 2\) for 2 names, found \(3, 3\)"):
        plots.order_matrix(MATRIX, ["a", "b"], ax=ax)
    with pytest.raises(InputError, match="once each"):
        plots.order_matrix(MATRIX, NAMES, ["a", "a", "b"], ax=ax)


def test_score_bars_go_from_first_to_last_and_differ_by_hatch(ax):
    plots.score_bars({"x": 2.0, "y": -3.0, "z": 1.0}, ax=ax)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["y", "z", "x"]
    bars = {round(p.get_y() + p.get_height() / 2): p for p in ax.patches}
    assert [bars[i].get_width() for i in range(3)] == [-3.0, 1.0, 2.0]
    assert bars[0].get_hatch() != bars[1].get_hatch()


def test_predicted_vs_measured_counts_signs_and_noise(ax):
    plots.predicted_vs_measured([1, -1, 2, 1], [2, -1, -1, 0.0], floor=0.5, ax=ax)
    assert ax.get_title().startswith("2 of 4 signs right\n50%, 95% interval 15% to 85%")
    by_label = {line.get_label(): line for line in ax.lines}
    assert by_label["sign right"].get_marker() != by_label["sign wrong"].get_marker()
    assert by_label["sign right"].get_xdata().tolist() == [1, -1]
    assert by_label["sign wrong"].get_ydata().tolist() == [-1, 0]
    assert "1 measured differences are below" in plots.alt_text(ax)
    with pytest.raises(InputError, match="found 2, 1"):
        plots.predicted_vs_measured([1, 2], [1], ax=ax)


def test_verification_strip_ranks_every_marked_order(ax):
    plots.verification_strip([3.0, 3.4, 3.1, 3.2], ["reverse", "plan", "random", "b"], ax=ax)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [
        "all orders tried", "plan (rank 4 of 4)", "reverse (rank 1 of 4)", "b (rank 3 of 4)"
    ]  # fmt: skip
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [0.0, 0.4, 0.1, 0.2])
    markers = [line.get_marker() for line in ax.lines[1:]]
    assert len(set(markers)) == len(markers)
    with pytest.raises(InputError, match="one label for each"):
        plots.verification_strip([1.0], [], ax=ax)


def test_tradeoff_tells_targets_from_sources(ax):
    plots.target_tradeoff({"t": -1e-3}, {"a": 1e-4}, ax=ax)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["target: t", "source: a"]
    assert sorted(p.get_width() for p in ax.patches) == [-1e-3, 1e-4]


def test_confidence_bars_split_at_ninety_percent(ax):
    plots.confidence_bars([("a", "b"), ("b", "c"), ("c", "d")], [0.95, 0.6, math.nan], ax=ax)
    by_label = {line.get_label(): line for line in ax.lines}
    assert by_label["at least 90%"].get_xdata().tolist() == [0.95]
    assert by_label["below 90%"].get_xdata()[0] == 0.6
    assert "c before d not known" in plots.alt_text(ax)


def test_geometry_plane_draws_both_paths_and_magnifies_the_gap(ax):
    plots.geometry_plane(*PLANE, ax=ax)
    by_label = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(by_label["a first"].get_xydata(), PLANE[3])
    np.testing.assert_allclose(by_label["b first"].get_xydata(), PLANE[4])
    assert by_label["a first"].get_linestyle() != by_label["b first"].get_linestyle()
    (inset,) = ax.child_axes
    for end in (PLANE[3][-1], PLANE[4][-1]):
        assert inset.get_xlim()[0] < end[0] < inset.get_xlim()[1]
        assert inset.get_ylim()[0] < end[1] < inset.get_ylim()[1]
    assert np.ptp(inset.get_xlim()) < 0.05
    with pytest.raises(InputError, match="grid_y"):
        plots.geometry_plane([0, 1], *PLANE[1:], ax=ax)


def test_geometry_plane_labels_tiny_steps_and_tiny_differences_apart(ax):
    tiny = [np.multiply(part, 2e-4) for part in (*PLANE[:2], *PLANE[3:5])]
    loss = 0.1391 + np.multiply(PLANE[2], 1e-6)
    plots.geometry_plane(*tiny[:2], loss, *tiny[2:], ("a", "b"), ax=ax)
    ax.figure.canvas.draw()
    assert ax.get_xlabel() == "along the step of a ($10^{-4}$)"
    ticks = [text.get_text() for text in ax.get_xticklabels()]
    assert 2 <= len(set(ticks)) <= 6 and "2" in ticks
    bar = next(other for other in ax.figure.axes if other is not ax)
    shown = [float(text.get_text()) for text in bar.get_xticklabels()]
    assert len(set(shown)) == 3 and shown[0] == pytest.approx(loss.min(), abs=3e-7)


def test_a_closed_gap_and_equal_effects_still_draw(ax):
    plots.geometry_plane(*PLANE[:4], PLANE[3], ("a", "b"), ax=ax)
    ax.figure.canvas.draw()
    assert ax.child_axes[0].get_title() == "no gap in this plane"
    other = Figure().subplots()
    plots.order_matrix(np.zeros((3, 3)), NAMES, ax=other)
    plots.verification_strip([1.0, 1.0], ["plan", "reverse"], ax=Figure().subplots())
    other.figure.canvas.draw()


def test_names_are_never_read_as_formulas(ax):
    evil = ["$x^", r"$\frac{", "a" * 60]
    plots.order_matrix(MATRIX, evil, ax=ax)
    ax.figure.canvas.draw()  # a broken formula raises here
    assert ax.get_yticklabels()[2].get_text().endswith("a…")


@given(st.integers(1, 400), st.data())
def test_wilson_bounds_solve_their_equation(n, data):
    k = data.draw(st.integers(0, n))
    p, z = k / n, 1.959963984540054
    low, high = wilson_interval(k, n)
    assert 0 <= low <= p <= high <= 1
    for bound in (low, high):  # |p − q| = z √(q(1−q)/n) defines the interval
        if 0 < bound < 1:
            assert abs(p - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), rel=1e-6)


def test_wilson_refuses_impossible_counts():
    with pytest.raises(InputError, match="0 <= k <= n"):
        wilson_interval(3, 2)
    with pytest.raises(InputError, match="confidence"):
        wilson_interval(1, 2, confidence=95)


def test_rank_correlation_gives_ties_their_mean_rank():
    assert rank_correlation([1, 1, 2], [1, 2, 3]) == pytest.approx(math.sqrt(3) / 2)
    assert math.isnan(rank_correlation([1, 1], [1, 2]))
    assert rank_correlation([3, 1, 2, 5], [0.3, 0.1, 0.4, 0.2]) == pytest.approx(0.2)
    with pytest.raises(InputError, match="one length"):
        rank_correlation([1], [1, 2])
