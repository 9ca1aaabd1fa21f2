"""How long a redraw of every live figure takes in the kernel: control, drawing, PNG."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from common import environment, save

from lietoolkit import live


def values_of(control: object, count: int) -> list:
    """Values a hand would pass through."""
    if isinstance(control.value, bool):
        return [bool(n % 2) for n in range(count)]
    if hasattr(control, "options"):
        options = list(control.options)
        return [options[n % len(options)] for n in range(count)]
    places = np.linspace(control.min, control.max, count)
    if hasattr(control, "base"):
        places = control.base**places
    return [type(control.value)(value) for value in places]


def redraws(name: str, count: int) -> dict[str, dict[str, float]]:
    """Median and 95th percentile in ms for every control of an explorer."""
    figure, found = getattr(live, name)(), {}
    for key, control in figure.controls.items():
        old, seconds, busy = control.value, [], []
        for value in values_of(control, count):
            began, worked = time.perf_counter(), time.process_time()
            figure.set(**{key: value})
            seconds.append(time.perf_counter() - began)
            busy.append(time.process_time() - worked)
        figure.set(**{key: old})
        if figure.errors:
            raise RuntimeError(f"{name}: {figure.errors}")
        found[key] = {
            "median_ms": round(1e3 * float(np.median(seconds)), 1),
            "p95_ms": round(1e3 * float(np.quantile(seconds, 0.95)), 1),
            # What remains when other programs want the processor too.
            "cpu_median_ms": round(1e3 * float(np.median(busy)), 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="redraws of each control")
    parser.add_argument("--out", type=Path, default=Path("out/live.json"))
    options = parser.parse_args()
    names = [name for name in live.__all__ if name.startswith("explore_")]
    result = {"environment": environment(), "redraw": {n: redraws(n, options.count) for n in names}}
    save(options.out, result)
    print(json.dumps(result["redraw"], indent=1))


if __name__ == "__main__":
    main()
