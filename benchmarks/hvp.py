"""What a gradient with a Hessian-vector product costs, in plain gradients of the same batch.

    python benchmarks/hvp.py --model course
    python benchmarks/hvp.py --model smollm2-135m --data FOLDER [--curvlinops PYTHON]

Every variant is timed in turn with the plain gradient in one process, and its peak memory is read
in a process of its own (Linux), model, batches and all vectors included. ``--curvlinops`` names the
Python of another environment that has lietoolkit and curvlinops-for-pytorch (2.0; 3.0 does not
differentiate SiLU). ``--variants`` measures only some; the others are kept as they were.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import environment, objectives_of, rows_of, save, settings_of

import lietoolkit as lt
from lietoolkit.environment import keep_freed_memory
from lietoolkit.tasks.models import load_model

VARIANTS = ("finite difference", "exact", "torch.func jvp(grad)", "tournament of 8")


def main() -> None:
    args = parse()
    if args.one:
        print(json.dumps(measure(args, args.one, args.peak)))
        return
    path = Path(args.out) / f"{args.model}.json"
    rows = json.loads(path.read_text())["rows"] if args.variants and path.exists() else {}
    chosen = args.variants or [*VARIANTS, *(["curvlinops"] if args.curvlinops else [])]
    for variant in chosen:
        python = args.curvlinops if variant == "curvlinops" else sys.executable
        timed = child(args, python, variant, peak=False)
        memory = child(args, python, variant, peak=True)
        plain = child(args, python, "plain", peak=True)
        rows[variant] = {
            "time": timed["ratio"],
            "spread": timed["spread"],
            "repeats": args.repeats,
            "plain_seconds": timed["plain_seconds"],
            "memory": memory["bytes"] / plain["bytes"],
            "error": timed.get("error"),
        }
        row = rows[variant]
        print(
            f"{variant:22} time {row['time']:.2f} (from {row['spread'][0]:.2f} to "
            f"{row['spread'][1]:.2f}), memory {row['memory']:.2f}, plain gradient "
            f"{row['plain_seconds']:.3f} s, relative error {row['error']}",
            flush=True,
        )
    save(path, {"rows": rows, "settings": settings_of(args), "environment": environment()})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="course")
    parser.add_argument("--data", help="folder of JSONL files; default: generated families")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS, "curvlinops"])
    parser.add_argument("--curvlinops", help="Python of an environment that has curvlinops")
    parser.add_argument("--out", default="out/hvp")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def child(args: argparse.Namespace, python: str, variant: str, peak: bool) -> dict:
    """Run one measurement in a process of its own."""
    options = ["--model", args.model, "--rows", args.rows, "--max-length", args.max_length]
    options += ["--repeats", args.repeats, "--threads", args.threads, "--one", variant]
    options += (["--data", args.data] if args.data else []) + (["--peak"] if peak else [])
    out = subprocess.run(
        [python, __file__, *map(str, options)], check=True, capture_output=True, text=True
    )
    return json.loads(out.stdout.splitlines()[-1])


def measure(args: argparse.Namespace, variant: str, peak: bool) -> dict:
    """Time against the plain gradient, or peak memory from the loaded model on."""
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_freed_memory()  # as the command line does
    before = resident("VmRSS")
    model, tokenizer = load_model(args.model)
    space = lt.ParameterSpace(model)
    theta = space.vector()
    families = rows_of("sft", args.data, "train", 0, 4 * args.rows)
    names = sorted(families)[: 9 if variant.startswith("tournament") else 2]
    made = objectives_of(space, tokenizer, "sft", families, names, args.rows, 1, 0, args.max_length)
    target, sources = made.pop(names[0]), made
    source = sources[names[1]]
    if peak:
        # Nothing else may leave its mark: a direction from nowhere, a step that was not searched.
        space.difference_move = 1e-2
        v = torch.randn(space.size, generator=torch.Generator().manual_seed(0))
        run = variants(space, source, sources, target, theta, v)[variant]
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
        run()
        return {"bytes": resident("VmHWM") - before}
    v = target.gradient(theta)
    source.gradient_and_hvp(theta, v)  # finds the finite-difference step, once per model
    run = variants(space, source, sources, target, theta, v)[variant]
    many = list(sources.values()) if variant.startswith("tournament") else [source]
    run()
    ratios, plains = [], []
    for _ in range(args.repeats):
        start = time.perf_counter()
        for one in many:
            one.gradient(theta)
        middle = time.perf_counter()
        run()
        end = time.perf_counter()
        plains.append((middle - start) / len(many))
        ratios.append((end - middle) / plains[-1])
    result = {
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "plain_seconds": statistics.median(plains),
    }
    if variant in ("finite difference", "torch.func jvp(grad)"):
        exact = source.gradient_and_hvp(theta, v, "exact")[1]
        result["error"] = float(space.norm(run()[1] - exact) / space.norm(exact))
    return result


def resident(field: str) -> int:
    """Memory of this process in bytes: VmRSS now, VmHWM at its highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def variants(
    space: lt.ParameterSpace,
    source: lt.ModelObjective,
    sources: dict[str, lt.ModelObjective],
    target: lt.ModelObjective,
    theta: torch.Tensor,
    v: torch.Tensor,
) -> dict[str, Callable]:
    """Each a call that ends with gradient and product, but the plain gradient."""
    lr = 1e-4
    return {
        "plain": lambda: source.gradient(theta),
        "finite difference": lambda: source.gradient_and_hvp(theta, v, "finite-difference"),
        "exact": lambda: source.gradient_and_hvp(theta, v, "exact"),
        "torch.func jvp(grad)": lambda: forward_over_reverse(space, source, theta, v),
        "tournament of 8": lambda: lt.tournament(sources, target, theta, lr),
        "curvlinops": lambda: curvlinops_product(space, source, v),
    }


def forward_over_reverse(
    space: lt.ParameterSpace, source: lt.ModelObjective, theta: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """torch.func's recipe: the directional derivative of the gradient."""
    (batch,) = source._batches

    def loss(parameters: dict) -> torch.Tensor:
        def model(**inputs: object) -> object:
            return torch.func.functional_call(space.model, parameters, kwargs=inputs)

        return source.kind.loss(model, batch)

    at = dict(zip(space.names, space.unflatten(theta), strict=True))
    along = dict(zip(space.names, space.unflatten(v), strict=True))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        g, hv = torch.func.jvp(torch.func.grad(loss), (at,), (along,))
    return space.flatten(list(g.values())), space.flatten(list(hv.values()))


def curvlinops_product(
    space: lt.ParameterSpace, source: lt.ModelObjective, v: torch.Tensor
) -> torch.Tensor:
    """curvlinops' Hessian operator on the same batch."""
    from curvlinops import HessianLinearOperator

    (batch,) = source._batches
    labels = batch["labels"][:, 1:].flatten()
    kept = labels != -100

    class Logits(torch.nn.Module):
        """Rows of logits, one for each token that is learned."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = space.model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.inner(ids, use_cache=False).logits[:, :-1].flatten(0, 1)[kept]

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        operator = HessianLinearOperator(
            Logits(),
            torch.nn.CrossEntropyLoss(),
            list(space.tensors),
            [(batch["input_ids"], labels[kept])],
            check_deterministic=False,
            num_data=int(kept.sum()),
            batch_size_fn=len,
        )
        return operator @ v


if __name__ == "__main__":
    main()
