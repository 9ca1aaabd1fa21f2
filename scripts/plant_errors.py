"""Plant known mistakes one by one and see which fast test notices each.

    python scripts/plant_errors.py            # all; exit 1 when one goes unnoticed
    python scripts/plant_errors.py label      # those whose description holds the word
    python scripts/plant_errors.py --part 1/2 # every other one, to share them among processes

Works on a copy of the package and its tests. Each mistake is one replacement in the source text
that must fit exactly once, so that it cannot fade away when the code changes. First the same tests
must pass without a mistake. Children are forked after the slow imports (POSIX only).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
SECONDS = 60  # of computing for one mistake; it may make a test run forever
SLOW_IMPORTS = ("torch", "numpy", "pytest", "hypothesis", "transformers", "datasets", "trl")


class Mistake(NamedTuple):
    """A replacement in one file, and the tests that should notice it."""

    what: str
    file: str
    old: str
    new: str
    tests: str


TRUTH, TOURNAMENT = "training/truth.py", "order/tournament.py"
LOSSES, BATCHES, MODEL = "tasks/losses.py", "tasks/batches.py", "tasks/objective.py"
MISTAKES = (
    Mistake("flipped sign of the score matrix", TOURNAMENT,
            "sigma = products - products.T", "sigma = products.T - products", "test_order"),
    Mistake("flipped sign of the bracket", "geometry/bracket.py",
            "return b.hvp(theta, g_a, method) - a.hvp(theta, g_b, method)",
            "return a.hvp(theta, g_b, method) - b.hvp(theta, g_a, method)", "test_geometry"),
    Mistake("transport term of the stage commutator dropped", "order/stage.py",
            "(torch.stack(losses) + torch.stack(along))", "torch.stack(losses)", "test_order"),
    Mistake("the target read as if curvature left all of an offset", "order/stage.py",
            "left = float(shorter.square().clamp(max=1.0))", "left = 1.0", "test_horizon"),
    Mistake("updates shortened, and what is linear not", "order/stage.py",
            "state_minus(w, bare, left)", "state_minus(w, bare)", "test_order"),
    Mistake("a source in the mean that its own second stage begins at", "order/stage.py",
            "if j != i]", "]", "test_horizon"),
    Mistake("stages replayed from the mean, not from where they begin", "order/stage.py",
            "[state for i, state in enumerate(solo) if i != j]", "[mean] * (len(solo) - 1)",
            "test_order"),
    Mistake("optimizer buffers left out of the stage commutator", "training/reverse.py",
            "zip((a.theta, *a.buffers), (b.theta, *b.buffers), strict=True)",
            "zip((a.theta,), (b.theta,), strict=True)", "test_order"),
    Mistake("cotangents of optimizer buffers dropped", "training/reverse.py",
            "outer = [cotangent.theta, *cotangent.buffers]",
            "outer = [cotangent.theta, *(0 * b for b in cotangent.buffers)]", "test_from_end"),
    Mistake("flipped sign of the steps left out from the end", "order/from_end.py",
            "change[i] += float(", "change[i] -= float(", "test_from_end"),
    Mistake("chosen stages left out from the end", "order/from_end.py",
            "self.train(state, self.stages(last, place))",
            "self.train(state, self.stages(last[:1], place))", "test_from_end"),
    Mistake("all targets' expected losses are those of the first", "order/recommend.py",
            "[float(losses[m]) for losses in tries]", "[float(losses[0]) for losses in tries]",
            "test_planning"),
    Mistake("every sweep from the end in the same direction", "training/stages.py",
            "range(sources) if sweep % 2 == 0 else reversed(range(sources))", "range(sources)",
            "test_from_end"),
    Mistake("no curvature in the reverse step", "training/reverse.py",
            "cotangent.theta + hc", "cotangent.theta", "test_training"),
    Mistake("flipped sign of forgetting", "order/schedule_bracket.py",
            "v.sub_(g, alpha=share[name])", "v.add_(g, alpha=share[name])", "test_order"),
    Mistake("stages of other lengths counted as equal", "order/schedule_bracket.py",
            "total.add_(next(products), alpha=share[name])", "total.add_(next(products))",
            "test_mixed"),
    Mistake("flipped sign of the measured effect", TRUTH,
            "float(losses[0] - losses[1])", "float(losses[1] - losses[0])", "test_order"),
    Mistake("swapped order in the runner", TRUTH,
            "name = order[position]\n", "name = order[-1 - position]\n",
            "test_training"),
    Mistake("dropped k squared", TOURNAMENT,
            "lr**2 * k.outer(k)", "lr**2 * k.outer(k).sqrt()", "test_order"),
    Mistake("dropped eta squared", TOURNAMENT,
            "lr**2 * k.outer(k)", "lr * k.outer(k)", "test_order"),
    Mistake("HVP of the wrong source in the bracket", "geometry/bracket.py",
            "return b.hvp(theta, g_a, method) - a.hvp(theta, g_b, method)",
            "return a.hvp(theta, g_a, method) - b.hvp(theta, g_b, method)", "test_geometry"),
    Mistake("HVP of the wrong source in the tournament", TOURNAMENT,
            "name: squared * _effects(sources, block)",
            "name: squared * _effects(sources, block.roll(1, 1))",
            "test_order"),
    Mistake("HVP of the wrong source in the whole order", "order/schedule_bracket.py",
            "return sources[name].gradient_and_hvp",
            "return sources[order[0]].gradient_and_hvp", "test_order"),
    Mistake("gradient taken at the wrong point", MODEL,
            "with torch.enable_grad(), self._at(theta) as parameters:\n            for",
            "with torch.enable_grad(), self._at(self.space.vector()) as parameters:\n"
            "            for", "test_geometry"),
    Mistake("truth in float32 although float64 was asked for", MODEL,
            "StayDouble() if self.space.dtype == torch.float64 else nullcontext()",
            "nullcontext()", "test_planning"),
    Mistake("one-sided difference with the step of two sides", "geometry/objective.py",
            "for sign in (1, -1))", "for sign in (1, 0))", "test_geometry"),
    Mistake("reference model that moves", LOSSES,
            'margin = (chosen - batch["ref_chosen_logps"]) - (rejected -',
            "margin = (chosen - chosen.detach()) - (rejected -", "test_losses"),
    Mistake("chosen and rejected changed round", LOSSES,
            "chosen, rejected = (-losses.sum(dim=1)).chunk(2)",
            "rejected, chosen = (-losses.sum(dim=1)).chunk(2)", "test_losses"),
    Mistake("mean instead of sum over completion tokens", LOSSES,
            "(-losses.sum(dim=1)).chunk(2)", "(-losses.mean(dim=1)).chunk(2)", "test_losses"),
    Mistake("unshifted labels", LOSSES,
            "targets = labels[:, 1:]\n", "targets = labels[:, :-1]\n", "test_losses"),
    Mistake("padding counted in the mean", LOSSES,
            "mask.sum().clamp(min=1)", "mask.numel()", "test_losses"),
    Mistake("parts of a batch weighted alike", MODEL,
            "shares = [mine * self.kind.weight(piece) / total for piece in pieces]",
            "shares = [mine / len(pieces) / self._readers] * len(pieces)", "test_planning"),
    Mistake("padding on the left looked at", "tasks/losses.py",
            "(mask[:, 1:] <= mask[:, :-1]).all()", "(mask[:, 1:] <= 1).all()", "test_losses"),
    Mistake("rows read twice by a thinned rehearsal", MODEL,
            "p[j % len(p)] for j in range(count)", "p[0] for j in range(count)", "test_geometry"),
    Mistake("of two trained orders the worse one called better", "order/recommend.py",
            "return float(ours < theirs)", "return float(ours > theirs)", "test_planning"),
    Mistake("all batches read beside a search", "planning.py",
            "name: source.shortened(read) for", "name: source for", "test_planning"),
    Mistake("state of another place taken from the trail", "training/trail.py",
            "enumerate(path, 1)", "enumerate(path)", "test_training"),
    Mistake("beginnings that are shared paid again", "order/search.py",
            "begun = order[: shared_stages(last, order)]", "begun = order[:0]", "test_search"),
    Mistake("mask off by one", BATCHES, "[i >= start for i", "[i > start for i", "test_batches"),
    Mistake("prompt trained too", BATCHES,
            "[i >= start for i", "[i >= 0 for i", "test_batches"),
    Mistake("un-restored parameters", "geometry/space.py",
            "                parameter.data = data\n", "", "test_geometry"),
    Mistake("un-restored gradients", "geometry/space.py",
            "                parameter.grad = grad\n", "", "test_geometry"),
    Mistake("state of another prefix reused", TRUTH,
            "del path[shared:]", "del path[shared + 1 :]", "test_training"),
    Mistake("un-shared prefix", TRUTH,
            "shared = _common(order, [name for name, _ in path])", "shared = 0",
            "test_training"),
    Mistake("schedule begun again in each stage", TRUTH,
            "sizes[first : first + lengths[name]]", "sizes[: lengths[name]]", "test_training"),
    Mistake("replayed orders compared at the wrong place", "order/replay.py",
            "o.loss(path[-1][1].theta + shift)", "o.loss(path[-1][1].theta)", "test_replay"),
    Mistake("replayed changes of gradients with the wrong sign", "order/replay.py",
            "middle + move,", "middle - move,", "test_replay"),
    Mistake("chances that grow with the reach", "order/calibration.py",
            "- by_reach * longer.log()", "+ by_reach * longer.log()", "test_calibration"),
    Mistake("optimizer state lost between stages", TRUTH,
            "if reset and position:", "if position:", "test_training"),
    Mistake("every step reads the first batch", "training/stages.py",
            "batch=s % source.batches", "batch=0", "test_training"),
    Mistake("kept losses rounded", TRUTH,
            '"loss": loss.hex()', '"loss": round(loss, 9).hex()', "test_training"),
    Mistake("only the own file resumed from", TRUTH,
            'folder.glob(f"{name}*.jsonl")', "folder.glob(self.path.name)", "test_ranks"),
    Mistake("resumed under other settings", TRUTH,
            '        "lr": lr,\n', "", "test_training"),
    Mistake("clipping lost after a stage's first step", "training/optimizers.py",
            "advance(self.inner, state, self._cut(g), lrs)", "advance(self.inner, state, g, lrs)",
            "test_training"),
    Mistake("a stage writes over the parameters it was given", "training/stages.py",
            "TrainingState(state.theta.clone(),", "TrainingState(state.theta,", "test_training"),
    Mistake("AdamW without bias correction", "training/optimizers.py",
            "(1 - self.beta2**n) ** 0.5", "1.0", "test_training"),
    Mistake("weight decay added to the gradient", "training/optimizers.py",
            "theta = state.theta * (1 - lr * self.weight_decay)",
            "theta = state.theta * (1 - self.weight_decay)", "test_training"),
    Mistake("largest score first", "order/linear_ordering.py",
            "key=lambda i: (scores[i], i)", "key=lambda i: (-scores[i], i)", "test_order"),
    Mistake("constraints turned round", "order/linear_ordering.py",
            "any((j, i) in (before or ())", "any((i, j) in (before or ())", "test_order"),
    Mistake("worst order tried is taken", "order/search.py",
            "tried[min(true, key=losses.__getitem__)]", "tried[max(true, key=losses.__getitem__)]",
            "test_search"),
    Mistake("searched where losses are high", "order/surrogate.py",
            "x * moved[near]).min(0)", "x * moved[near]).max(0)",
            "test_search"),
    Mistake("rough rehearsals trusted like true runs", "order/surrogate.py",
            "inner = trust[np.ix_(self.levels, self.levels)] * kernels[at]",
            "inner = 1.0 * kernels[at]", "test_search"),
    Mistake("search beyond the budget", "order/search.py",
            "left -= paid", "left -= costs[0]", "test_planning"),
    Mistake("sources alike taken for distinct", "order/confidence.py",
            "likeness >= likeness[0]", "likeness <= likeness[0]", "test_order"),
    Mistake("weights of targets ignored", TOURNAMENT,
            "weights[name] * tensor for name", "tensor for name", "test_order"),
    Mistake("each process chooses its own finite difference", "order/shares.py",
            "source.settle(theta, direction)", "pass", "test_ranks"),
    Mistake("costs of other processes forgotten", "geometry/ranks.py",
            "            book(Cost(*cost))", "            pass", "test_ranks"),
    Mistake("products of another process's sources", "geometry/storage.py",
            "total[places] = part", "total[sorted(range(len(part)))] = part", "test_ranks"),
    Mistake("products of a sharded model's own pieces only", "geometry/space.py",
            "return ranks.summed(total)", "return total", "test_sharded"),
    Mistake("whole parameters of a sharded model used again", "geometry/shards.py",
            "            part.reshard()\n", "            pass\n", "test_sharded"),
    Mistake("the mean of dealt rows taken for their sum", "tasks/objective.py",
            "(self._readers * loss).backward", "loss.backward", "test_sharded"),
    Mistake("an error kept to its process", "geometry/ranks.py",
            '_exchange("together", None, error)', "pass", "test_ranks"),
)  # fmt: skip


class Watch:
    """Remembers the first test that failed (a pytest plugin)."""

    noticed = ""

    def pytest_runtest_logreport(self, report) -> None:
        """After each phase of each test."""
        if report.failed and not self.noticed:
            self.noticed = report.nodeid.removeprefix("tests/")

    def pytest_collectreport(self, report) -> None:
        """After each file was read."""
        if report.failed and not self.noticed:
            self.noticed = f"{report.nodeid} could not be collected"


def _in_child(copy: Path, tests: str, log: Path, seconds: float) -> str:
    os.chdir(copy)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # its own time, on a busy machine too
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(copy), str(copy / "tests")]
    import lietoolkit

    assert Path(lietoolkit.__file__).is_relative_to(copy), lietoolkit.__file__
    import pytest

    watch = Watch()
    files = [f"tests/{name}.py" for name in tests.split()]
    # Imported before the fork, plugins cannot be rewritten; that is no fault of a test.
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:cacheprovider"]
    code = pytest.main(["-x", *quiet, *files], plugins=[watch])
    return watch.noticed or ("" if code == 0 else f"pytest ended with {code}")


def run_tests(copy: Path, tests: str, log: Path, seconds: float = SECONDS) -> str:
    """Run tests of the copy in a forked child; the first test that failed, or ''."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, f"{_in_child(copy, tests, log, seconds)}\n".encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = file.read()
    os.waitpid(child, 0)
    # No answer: the child died, by its alarm or because the package could not be imported.
    return answer.rstrip("\n") if answer else "died"


def misfits() -> list[str]:
    """Mistakes that cannot be planted, because the code has changed and they have not."""
    found = {m: (ROOT / "lietoolkit" / m.file).read_text("utf-8").count(m.old) for m in MISTAKES}
    return [
        f"{mistake.what}: expected {mistake.old!r} once in {mistake.file}, found it {count} times"
        for mistake, count in found.items()
        if count != 1
    ]


def plant(copy: Path, mistake: Mistake, log: Path) -> str:
    """Change the copy, run the tests, change it back."""
    path = copy / "lietoolkit" / mistake.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mistake.old, mistake.new), encoding="utf-8")
    try:
        return run_tests(copy, mistake.tests, log)
    finally:
        path.write_text(text, encoding="utf-8")


def main() -> None:
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("word", nargs="*", help="only mistakes whose name holds these words")
    parser.add_argument("--part", default="1/1", help="2/3: the second third of them")
    args = parser.parse_args()
    part, parts = map(int, args.part.split("/"))
    chosen = [m for m in MISTAKES if " ".join(args.word) in m.what][part - 1 :: parts]
    if unfit := misfits():
        sys.exit("\n".join(unfit))
    for name in SLOW_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    unnoticed = []
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy, log = Path(folder) / "copy", Path(folder) / "log"
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("lietoolkit", "tests", "scripts", "exercises"):
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", copy)
        tests = " ".join(sorted({name for m in chosen for name in m.tests.split()}))
        failed = run_tests(copy, tests, log, 10 * SECONDS)  # all of them
        if failed:
            print(log.read_text()[-3000:])
            sys.exit(f"without any mistake: {failed} fails; nothing can be said")
        for mistake in chosen:
            noticed = plant(copy, mistake, log)
            print(f"{mistake.what:48} {noticed or 'NOBODY NOTICED'}", flush=True)
            if not noticed or noticed.startswith(("died", "pytest ended")):
                unnoticed.append(mistake.what)
    seconds = time.perf_counter() - begin
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} mistakes noticed; {seconds:.0f} s")
    if unnoticed or not chosen:
        sys.exit(1)


if __name__ == "__main__":
    main()
