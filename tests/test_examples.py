"""The examples: batch reports, made once each and compared; and training with TRL."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("papermill")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def batch():
    spec = importlib.util.spec_from_file_location("batch", ROOT / "examples" / "batch_reports.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cases_have_names_of_their_own_and_equal_keys(batch) -> None:
    for name, (question, cases) in batch.SWEEPS.items():
        assert question.endswith("?")
        assert len({batch.name_of(case) for case in cases}) == len(cases) >= 1, name
        assert len({tuple(case) for case in cases}) == 1, "one table, the same columns"


def test_an_unknown_sweep_is_refused(batch, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        batch.main(["sizes"])
    assert stop.value.code == 2
    assert (
        "expected a sweep out of seeds, models, targets; found 'sizes'" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_sweep_makes_its_reports_once(batch, tmp_path: Path, monkeypatch, capsys) -> None:
    cases = [{"seed": 0}, {"seed": 1}]
    monkeypatch.setitem(batch.SWEEPS, "seeds", ("Two?", cases))
    batch.main(["seeds", "--out", str(tmp_path)])
    assert capsys.readouterr().out.count(" made") == 2
    folder = tmp_path / "seeds"
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search("https?://", page)
    rows = re.findall(r"<tr><td>(\d)</td><td>(.+?)</td><td>([+-][\d.e-]+)</td>", page)
    for case, (seed, order, effect) in zip(cases, rows, strict=True):
        plan = batch.read_plan(folder / f"seed-{seed}" / "plan.json")
        assert plan["seed"] == case["seed"] == int(seed)
        assert order == " → ".join(plan["order"])
        (target,) = plan["targets"].values()
        assert float(effect) == pytest.approx(target["plan_vs_reverse"], rel=0.01)
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) == 2
    before = {link: (folder / link).stat().st_mtime_ns for link in links}
    (folder / "seed-1" / "report.html").unlink()  # as if stopped before the second report
    batch.main(["seeds", "--out", str(tmp_path)])
    assert re.findall("seed-(.) (was there|made)", capsys.readouterr().out) == [
        ("0", "was there"), ("1", "made"),
    ]  # fmt: skip
    assert (folder / links[0]).stat().st_mtime_ns == before[links[0]]
    assert (folder / links[1]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trl_sft", "trl_sft_lora", "trl_dpo", "trl_sft_then_dpo"])
def test_trl_examples_run_as_they_stand(name: str, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    script = ROOT / "examples" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), "--rows", "8", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    orders = re.findall(r"[Oo]rder.*: (\w+(?: -> \w+){3})", done.stdout)
    assert len(orders) == (1 if name in ("trl_sft", "trl_dpo") else 2), done.stdout
    losses = [float(x) for x in re.findall(r"Target (?:before|after): ([\d.]+)", done.stdout)]
    pairs = zip(losses[::2], losses[1::2], strict=True)
    assert all(before != after for before, after in pairs) and losses
