"""The report: built once through papermill, then read, attacked and driven in a browser."""

import base64
import copy
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import permutations
from pathlib import Path

import nbformat
import numpy as np
import pytest
from chromium import CHROMIUM, NO_BROWSER
from example_plan import example_plan, total

from lietoolkit import report
from lietoolkit.errors import InputError
from lietoolkit.order.constraints import obeys, parse_constraints
from lietoolkit.plots import loss_text
from lietoolkit.report import build
from lietoolkit.report.explorer import explorer_data, neighbor_effects, weighted_changes

ROOT = Path(__file__).parent.parent
EVIL = [
    "<script>window.hacked=1</script>",
    "](javascript:alert(2))",
    "$x^2$ & \"q\" 'r' </div>-->",
    '<img src=x onerror="window.hacked=1">',
    "a" * 70,
]
EXPLORER_JS = ROOT / "lietoolkit" / "report" / "explorer.js"


def save(plan, folder):
    path = folder / "plan.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def plan():
    plan = example_plan(names=EVIL)
    plan["notes"] = ["<b>bold</b> note"]
    plan["model"] = "</title><script>window.hacked=1</script>"
    return plan


@pytest.fixture(scope="module")
def built(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    page, notebook = report.build_report(save(plan, folder), folder / "out")
    return page, notebook


class Page(HTMLParser):
    """Tags with attributes, and the text outside of script and style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._skip = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._skip += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._skip -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._skip:
            self.text.append(data)


@pytest.fixture(scope="module")
def page(built):
    return Page(built[0].read_text(encoding="utf-8"))


# --- the files ---------------------------------------------------------------------------------


def test_exactly_two_files_and_an_executed_notebook_without_errors(built):
    html, notebook = built
    assert sorted(p.name for p in html.parent.iterdir()) == ["report.html", "report.ipynb"]
    cells = [c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
    assert all(c.execution_count for c in cells)
    outputs = [o for c in cells for o in c.outputs]
    assert len(outputs) > 15
    assert all(o.output_type == "display_data" for o in outputs)  # no error, no stray print
    injected = next(c for c in cells if "injected-parameters" in c.metadata.get("tags", []))
    assert 'plan = "../plan.json"' in injected.source  # can be moved with its plan


def test_sections_come_in_the_order_of_the_questions(page):
    text = " ".join(page.text)
    heads = ["In which order to fine-tune", "gains or loses against its reverse",
             "Every pair of sources", "Try another order", "The trade-off", "the gap that does",
             "Predicted against measured", "Limits of this plan", "Settings, versions"]  # fmt: skip
    at = [text.index(head) for head in heads]
    assert at == sorted(at)


def test_nothing_is_loaded_from_elsewhere(built, page):
    text = built[0].read_text(encoding="utf-8")
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(key) or ""
            assert value.startswith(("data:image/png;base64,", "#")) or not value, (tag, value[:80])
        assert tag not in ("iframe", "object", "embed", "link", "base", "form")
    for pattern in (r"@import", r"url\s*\(", r"\bfetch\s*\(", r"XMLHttpRequest", r"https?://"):
        assert not re.search(pattern, text), pattern
    assert "default-src 'none'" in text  # and the browser enforces the rest


def test_every_figure_has_alt_text_with_numbers(page):
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 9
    for attributes in images:
        assert len(attributes["alt"]) > 40 and re.search(r"\d", attributes["alt"])
        assert base64.b64decode(attributes["src"].split(",")[1]).startswith(b"\x89PNG")


def test_markup_in_names_is_text(page, plan):
    scripts = [a for tag, a in page.tags if tag == "script"]
    assert len(scripts) == 1  # the explorer's
    assert not [a for _, a in page.tags for key in a if key.startswith("on")]
    assert not [a for tag, a in page.tags if tag == "b"]
    text = "".join(page.text)
    for name in EVIL:
        assert name in text
    assert plan["model"] in text and "<b>bold</b> note" in text
    root = next(a for _, a in page.tags if a.get("class") == "lt-explorer")
    assert json.loads(root["data-plan"])["names"] == EVIL


def test_first_screen_holds_order_and_how_sure(plan):
    text = repr(report.headline(plan)[0]).split("first to last:")[1]
    at = [text.index(name) for name in plan["order"]]
    assert at == sorted(at)
    run = plan["verification"]["steps"]["20"]
    assert f"{run['rank']} of {run['n']}" in text and "200 redraws" in text
    expected = sum(t["weight"] * t["plan_vs_reverse"] for t in plan["targets"].values())
    assert f"{loss_text(abs(expected), signed=False)} lower" in text


def test_tables_hold_the_measured_numbers(plan):
    blocks = report.verification(plan)
    text = "\n".join(map(repr, blocks))
    for run in plan["verification"]["steps"].values():
        plan_loss, reverse_loss = run["measured"][:2]
        assert loss_text(reverse_loss - plan_loss) in text
        assert f"The plan came {run['rank']} of {run['n']}" in text
    for name in plan["baselines"]:
        assert name in text
    reverse = "\n".join(map(repr, report.against_reverse(plan)))
    assert loss_text(plan["targets"]["hard cases"]["plan_vs_reverse"]) in reverse


def test_a_bare_plan_is_reported_too(tmp_path):
    plan = example_plan(verified=False)
    for key in ("forgetting", "constraints", "confidence", "baselines", "geometry", "lr_rule",
                "sources", "notes", "cost", "seconds", "versions", "hardware"):  # fmt: skip
        del plan[key]
    plan["targets"] = {"exam": plan["targets"]["exam questions"]}
    data = report.read_plan(save(plan, tmp_path))
    for section in (report.headline, report.against_reverse, report.pairs, report.explorer,
                    report.tradeoff, report.geometry, report.verification,
                    report.limits_section, report.settings):  # fmt: skip
        blocks = section(data)
        assert blocks and all(repr(block) for block in blocks)
    assert "Not checked by training" in repr(report.headline(data)[0])


def test_figures_do_not_depend_on_the_readers_style(plan):
    from matplotlib import style

    plain = report.tradeoff(plan)[1].bundle["image/png"]
    with style.context("dark_background"):
        assert report.tradeoff(plan)[1].bundle["image/png"] == plain


# --- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sure", "words"),
    [(1.0, "it is better"), (0.0, "it is worse"), (0.97, "97%"), (1 - 1e-6, "over 99%")],
)
def test_what_is_known_is_not_called_a_chance(sure, words):
    text = repr(report.headline({**example_plan(), "better_than_reverse": sure})[0])
    assert words in text and ("Chance that" in text) == (0 < sure < 1)


def test_curvature_is_shown_where_it_was_measured():
    plan = example_plan()
    assert "largest curvature" in repr(report.settings(plan))
    plan["lr_rule"] = {"lambda_max": {}, "eta_lambda_max": None, "note": ""}
    without = repr(report.settings(plan))
    assert "largest curvature" not in without and "truncated rows" in without


@pytest.mark.parametrize(
    ("change", "level", "title", "words"),
    [
        ({"steps": 1}, "ok", "Number of steps", "one step"),
        ({"steps": 5}, "caution", "Number of steps", "5 steps"),
        ({"steps": 20}, "serious", "Number of steps", "no better than chance"),
        ({"optimizer": "adamw"}, "serious", "Optimizer", "coin toss"),
        ({"optimizer": "momentum"}, "serious", "Optimizer", "memory"),
        ({"schedule": "cosine"}, "caution", "Step-size schedule", "cosine"),
        ({"lr_rule": {"eta_lambda_max": 0.15}}, "ok", "Step size", "0.15"),
        ({"lr_rule": {"eta_lambda_max": 0.4}}, "caution", "Step size", "0.4"),
        ({"lr_rule": {"eta_lambda_max": 1.4}}, "serious", "Step size", "mean nothing"),
        ({"lr_rule": {}}, "caution", "Step size", "do not know"),
        ({"verification": None}, "caution", "Not checked", "--verify"),
        ({"notes": ["mind the gap"]}, "caution", "Noted while planning", "mind the gap"),
    ],
)
def test_limits_follow_from_the_plan(change, level, title, words):
    plan = {**example_plan(), **change}
    found = [limit for limit in report.limits(plan) if limit.title == title]
    assert [limit.level for limit in found] == [level]
    assert words in found[0].text
    assert report.limits(plan)[0].level != "ok"  # the most serious stands first


def test_planners_that_see_the_whole_run_are_not_called_local():
    plan = {**example_plan(), "steps": 20, "optimizer": "adamw", "method": "stage"}
    assert not {"Number of steps", "Optimizer"} & {limit.title for limit in report.limits(plan)}


def test_a_rehearsed_plan_is_not_judged_as_a_local_one():
    plan = example_plan(verified=False) | {
        "planner": "from-end", "optimizer": "adamw", "steps": 20, "method": "local",
        "effort": {"tries": {"1": 3, "2": 4}, "why": "beyond the local score"},
        "rounds": [],
    }  # fmt: skip
    found = {limit.title: limit for limit in report.limits(plan)}
    assert "Optimizer" not in found
    assert found["Number of steps"].level == "caution"
    assert "4 orders with 2 of 20" in found["Number of steps"].text
    plan["effort"] = plan["effort"] | {"tries": {"10": 4}}
    closer = {limit.title: limit for limit in report.limits(plan)}
    assert closer["Number of steps"].level == "ok"


def test_the_step_size_is_not_warned_about_twice():
    plan = example_plan()
    plan["lr_rule"] = {"eta_lambda_max": 0.7, "note": "too large"}
    plan["notes"] = ["too large", "something else"]
    texts = [limit.text for limit in report.limits(plan)]
    assert "too large" not in texts and "something else" in texts


def test_an_effect_below_rounding_is_said():
    plan = example_plan()
    for target in plan["targets"].values():
        target["plan_vs_reverse"] *= 1e-4
    found = {limit.title: limit.level for limit in report.limits(plan)}
    assert found["Size of the effect"] == "serious"
    assert "Size of the effect" not in {
        limit.title for limit in report.limits({**plan, "dtype": "float64"})
    }


# --- bad input ---------------------------------------------------------------------------------


def broken(key, value):
    def change(plan):
        at = plan
        *path, last = key.split("/")
        for step in path:
            at = at[step]
        at[int(last) if isinstance(at, list) else last] = value

    return change  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.pop("order"), "expected the key 'order'"),
        (broken("order", ["arithmetic"]), "'order': expected every name"),
        (broken("names", ["a", "a"]), "different strings"),
        (broken("scores", {}), "'scores'"),
        (broken("matrix", [[0.0]]), "'matrix': expected 5 rows of 5 numbers"),
        (lambda p: p["matrix"][0].__setitem__(1, float("nan")), "finite numbers, found nan"),
        (broken("targets", {}), "at least one target"),
        (broken("targets/hard cases", {"weight": 1}), "targets/hard cases/matrix"),
        (broken("steps", "many"), "'steps': expected int, found 'many'"),
        (broken("steps", True), "'steps': expected int"),
        (broken("constraints", ["nobody last"]), "nobody last"),
        (broken("verification/steps/1/measured", [1.0]), "lists of one length"),
        (broken("verification/steps/20/orders/0", ["x"]), "the planned order among them"),
    ],
)
def test_a_broken_plan_is_named(change, words, tmp_path):
    plan = example_plan()
    change(plan)
    path = save(plan, tmp_path)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        report.read_plan(path)
    assert str(path) in str(caught.value) and "lietoolkit plan" in str(caught.value)


def test_files_that_are_no_plan_are_named_with_their_line(tmp_path):
    path = tmp_path / "plan.json"
    for content, words in (
        (b'{\n"order": [,]\n}', "line 2: expected JSON"),
        (b"\xff\xfe", "expected UTF-8"),
        (b"[]", "expected an object, found 'list'"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            report.read_plan(path)
    with pytest.raises(InputError, match=r"none\.json: expected a plan"):
        report.read_plan(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pian": "x"}, "no such parameter; it has: plan (str)"),
        ({"plan": 3}, "expected str, found 3 (int)"),
        ({"dpi": True}, "expected int, found True (bool)"),
        ({"dpi": "110"}, "expected int"),
        ({"dpi": 5}, "50 to 300"),
    ],
)
def test_parameters_are_validated(given, words):
    with pytest.raises(InputError, match=re.escape(words)):
        report.check_parameters(given)


def test_names_of_the_notebook_itself_are_no_parameters():
    notebook = {"In": ["x"], "Out": {}, "_": 3, "_i": "x", "report": report, "dpi": 90}
    assert report.check_parameters(notebook) == {"dpi": 90}


def test_nothing_is_written_when_something_is_wrong(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no such parameter"):
        report.build_report(save(example_plan(), tmp_path), out, colour="red")
    with pytest.raises(InputError, match="expected a plan"):
        report.build_report(tmp_path / "none.json", out)
    assert not out.exists()
    out.write_text("in the way")
    with pytest.raises(InputError, match="expected a folder that can be written to"):
        report.build_report(tmp_path / "plan.json", out)
    out.unlink()

    def full(target, *_):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    out.mkdir()
    (out / "report.html").write_text("older")
    monkeypatch.setattr(build, "_run", full)
    with pytest.raises(InputError, match="No space left"):
        report.build_report(tmp_path / "plan.json", out)
    assert [(p.name, p.read_text()) for p in out.iterdir()] == [("report.html", "older")]


# --- the template ------------------------------------------------------------------------------


def test_notebook_pair_and_packaged_copy_are_identical():
    jupytext = pytest.importorskip("jupytext")
    path = ROOT / "notebooks" / "report.ipynb"
    notebook = nbformat.read(path, as_version=4)
    script = jupytext.read(ROOT / "notebooks" / "src" / "report.py")

    def content(nb):
        return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in nb.cells]

    assert content(notebook) == content(script)
    assert not any(c.get("outputs") or c.get("execution_count") for c in notebook.cells)
    assert (ROOT / "lietoolkit/report/report.ipynb").read_bytes() == path.read_bytes()
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert set(re.findall(r"^(\w+) =", cell.source, re.M)) == set(report.reading.PARAMETERS)


# --- the explorer's arithmetic and behavior ------------------------------------------------------


def in_node(expression, data):
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not installed: the explorer's arithmetic is not checked")
    code = (
        f"const x = require({json.dumps(str(EXPLORER_JS))}); const d = {json.dumps(data)};"
        f"console.log(JSON.stringify({expression}))"
    )
    done = subprocess.run([node, "-e", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_scripts_change_equals_the_sum_over_pairs():
    plan = example_plan()
    names = plan["names"]
    orders = [list(order) for order in permutations(range(5))]
    matrices = [plan["matrix"], *(t["matrix"] for t in plan["targets"].values())]
    data = {"m": matrices, "orders": orders, "planned": explorer_data(plan)["planned"]}
    found = in_node(
        "d.m.map(m => d.orders.map(o => x.changeAgainst({matrix: m}, o, d.planned)))", data
    )
    expected = [
        [total(m, [names[i] for i in o], names) - total(m, plan["order"], names) for o in orders]
        for m in matrices
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-18)
    reverse = orders.index(data["planned"][::-1])
    for row, target in zip(found[1:], plan["targets"].values(), strict=True):
        assert row[reverse] == pytest.approx(-target["plan_vs_reverse"])  # two sources of one fact


def test_the_script_writes_numbers_as_python_does():
    rng = np.random.default_rng(1)
    values = [*(rng.normal(size=200) * 10.0 ** rng.integers(-9, 5, 200)), 0.0, 1e-9, -0.0996]
    values = [float(v) for v in values]
    assert in_node("d.map(x.lossText)", values) == [loss_text(v) for v in values]


def test_the_script_knows_broken_constraints_and_whom_to_blame():
    names = ["a", "b", "c", "d"]
    texts = ["a before c", "d last"]
    parsed = [sorted(parse_constraints([text], names)) for text in texts]
    orders = [list(order) for order in permutations(range(4))]
    data = {"c": [{"text": t, "pairs": p} for t, p in zip(texts, parsed, strict=True)],
            "orders": orders}  # fmt: skip
    found = in_node("d.orders.map(o => x.brokenConstraints(d.c, o).map(c => c.text))", data)
    for order, broken_texts in zip(orders, found, strict=True):
        expected = [t for t, p in zip(texts, parsed, strict=True) if not obeys(order, set(p))]
        assert broken_texts == expected
    assert in_node("x.culprits(d.c[1], [3, 0, 1, 2])", data) == [3]
    assert in_node("x.moved([0, 1, 2, 3], 3, 1)", data) == [0, 3, 1, 2]
    worst = in_node("x.pairsAgainst({matrix: [[0,-1,2],[1,0,3],[-2,-3,0]]}, [0,1,2])", data)
    assert [(p["first"], p["second"], p["effect"]) for p in worst] == [(1, 2, 3), (0, 2, 2)]


# --- a plan whose orders were tried --------------------------------------------------------------


def tried_plan(seed=0):
    """An example whose targets' losses after every order are known, and no sums over pairs."""
    plan = example_plan(seed, verified=False) | {"planner": "search"}
    plan["effort"] = {"tries": {"20/8": 9}, "why": "20 steps with adamw"}
    rng = np.random.default_rng(seed)
    digits = ["".join(map(str, order)) for order in permutations(range(5))]
    planned = "".join(str(plan["names"].index(name)) for name in plan["order"])
    plan["expected"] = {}
    for target in plan["targets"]:
        changes = dict(zip(digits, rng.normal(size=120).tolist(), strict=True))
        plan["expected"][target] = {o: x - changes[planned] for o, x in changes.items()}
    return plan


def test_neighbor_effects_are_the_pairs_effects_of_sums_over_pairs():
    plan = example_plan()
    names = plan["names"]
    changes = {
        "".join(map(str, order)): total(plan["matrix"], [names[i] for i in order], names)
        for order in permutations(range(5))
    }
    np.testing.assert_allclose(neighbor_effects(changes, 5), plan["matrix"], atol=1e-15)


def test_the_script_looks_up_what_is_expected_of_every_order():
    plan = tried_plan()
    data = explorer_data(plan)
    orders = [list(order) for order in permutations(range(5))]
    found = in_node(
        "[...d.data.targets, d.data.total].map(t => d.orders.map("
        "o => x.changeAgainst(t, o, d.data.planned)))",
        {"data": data, "orders": orders},
    )
    tables = list(plan["expected"].values())
    for row, table in zip(found, tables, strict=False):
        assert row == [table["".join(map(str, order))] for order in orders]
    weights = [target["weight"] for target in plan["targets"].values()]
    np.testing.assert_allclose(found[-1], np.average(found[:-1], axis=0, weights=weights) * 1.5)
    # Neighbors that would do better turned round, largest first.
    order = data["planned"][::-1]
    worst = in_node("x.pairsAgainst(d.data.total, d.order)", {"data": data, "order": order})
    effects = {}
    for at in range(4):
        turned = [*order[:at], order[at + 1], order[at], *order[at + 2 :]]
        gain = found[-1][orders.index(order)] - found[-1][orders.index(turned)]
        if gain > 0:
            effects[order[at], order[at + 1]] = gain
    assert effects
    assert [p["effect"] for p in worst] == pytest.approx(sorted(effects.values(), reverse=True))
    assert {(p["first"], p["second"]) for p in worst} == set(effects)


def test_the_matrix_of_a_tried_plan_is_that_of_its_tries():
    plan = tried_plan()
    text, matrix, note, _ = (block.bundle for block in report.pairs(plan))
    assert "guesses from the orders that were tried" in str(text)
    assert "the best of those that were tried" in str(note)
    effects = np.array(neighbor_effects(weighted_changes(plan), 5))
    shown = str(matrix)
    a, b = np.unravel_index(effects.argmax(), effects.shape)
    assert plan["names"][a] in shown and plan["names"][b] in shown
    assert str(text) != str(report.pairs({**plan, "expected": {}})[0].bundle)
    (limit,) = [x for x in report.limits(plan) if x.title == "Number of steps"]
    assert "guess from these" in limit.text
    (limit,) = [x for x in report.limits({**plan, "expected": {}}) if x.title == "Number of steps"]
    assert "short steps" in limit.text


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p: p["expected"].pop("hard cases"), "every target"),
        (lambda p: p["expected"]["hard cases"].pop("01234"), "each of 120 orders"),
        (lambda p: p["expected"]["hard cases"].update({"01234": None}), "finite numbers"),
    ],
)
def test_a_table_that_lacks_orders_is_refused(tmp_path, change, message):
    plan = tried_plan()
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    assert report.read_plan(path)["expected"] == plan["expected"]
    change(plan)
    path.write_text(json.dumps(plan))
    with pytest.raises(InputError, match=message):
        report.read_plan(path)


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def live(browser, built):
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    live = context.new_page()
    trouble = []
    live.on("pageerror", lambda error: trouble.append(str(error)))
    live.on("console", lambda message: trouble.append(message.text))
    live.on("dialog", lambda dialog: trouble.append(dialog.message))
    live.on("request", lambda r: trouble.append(r.url) if not r.url.startswith("file:") and
            not r.url.startswith("data:") else None)  # fmt: skip
    live.goto(built[0].as_uri())
    yield live
    assert not trouble
    assert live.evaluate("window.hacked") is None
    context.close()


def shown_order(live):
    return live.locator(".lt-sources .lt-name").evaluate_all(
        "nodes => nodes.map(n => n.firstChild.textContent)"
    )


def expected_change(plan, order, matrix=None):
    matrix = plan["matrix"] if matrix is None else matrix
    change = total(matrix, order, plan["names"]) - total(matrix, plan["order"], plan["names"])
    return loss_text(change)


def test_explorer_by_keyboard(live, plan):
    assert shown_order(live) == plan["order"]
    items = live.locator(".lt-sources li")
    items.nth(3).focus()
    live.keyboard.press("Alt+ArrowUp")
    live.keyboard.press("Alt+ArrowUp")
    order = list(plan["order"])
    order.insert(1, order.pop(3))
    assert shown_order(live) == order
    assert items.nth(1).evaluate("node => node === document.activeElement")
    status = live.locator(".lt-explorer [role=status][aria-live=polite]")
    assert expected_change(plan, order) in status.inner_text()
    values = live.locator(".lt-explorer .lt-value").all_inner_texts()
    matrices = [*(t["matrix"] for t in plan["targets"].values()), plan["matrix"]]
    for value, matrix in zip(values, matrices, strict=True):
        assert value.startswith(expected_change(plan, order, matrix))
    live.keyboard.press("ArrowDown")
    assert items.nth(2).evaluate("node => node === document.activeElement")
    live.get_by_role("button", name="Back to the plan").click()
    assert shown_order(live) == plan["order"]
    assert status.inner_text() == "This is the planned order."


def test_explorer_of_tried_orders(browser):
    plan = tried_plan()
    page = browser.new_page()
    (block,) = report.explorer(plan)
    page.set_content(block.bundle["text/html"])
    page.get_by_role("button", name="Reverse").click()
    order = "".join(str(plan["names"].index(name)) for name in plan["order"][::-1])
    values = page.locator(".lt-value").all_inner_texts()
    expected = [table[order] for table in plan["expected"].values()]
    expected.append(weighted_changes(plan)[order])
    for value, change in zip(values, expected, strict=True):
        assert value.startswith(loss_text(change))
    assert "eighbors" in page.locator(".lt-against").inner_text()
    page.close()


def test_explorer_by_mouse_and_buttons(live, plan):
    items = live.locator(".lt-sources li")
    items.first.scroll_into_view_if_needed()
    start, end = (items.nth(i).locator(".lt-handle").bounding_box() for i in (0, 4))
    live.mouse.move(start["x"] + 5, start["y"] + 5)
    live.mouse.down()
    live.mouse.move(start["x"] + 5, (start["y"] + end["y"]) / 2, steps=5)
    live.mouse.move(start["x"] + 5, end["y"] + end["height"], steps=5)
    live.mouse.up()
    order = [*plan["order"][1:], plan["order"][0]]
    assert shown_order(live) == order
    wishes = live.locator(".lt-wishes li").all_inner_texts()
    assert [w.split(":")[0] for w in wishes] == ["✗ broken", "✗ broken"]
    live.locator(".lt-sources li").nth(4).get_by_role("button").first.click()
    order.insert(3, order.pop(4))
    assert shown_order(live) == order
    live.get_by_role("button", name="Reverse").click()
    assert shown_order(live) == order[::-1]


def test_page_fits_a_phone(live):
    live.set_viewport_size({"width": 380, "height": 800})
    assert live.evaluate("document.documentElement.scrollWidth") <= 380


def test_a_copy_of_the_plan_is_left_alone(plan):
    before = copy.deepcopy(plan)
    for section in (report.headline, report.against_reverse, report.verification):
        section(plan)
    assert plan == before
