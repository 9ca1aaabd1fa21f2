"""Quality against compute: what each way to choose an order gains, and what it costs.

    python benchmarks/frontier.py --model networks --steps 20 --optimizer adamw --draws 12
    python benchmarks/frontier.py --model course --objective sft --sources 4 --steps 20 \
        --optimizer adamw --lr 3e-4 --schedule linear --warmup 8
    python benchmarks/frontier.py --model course --sources 10 --sample 300 --steps 20 \
        --optimizer adamw --lr 3e-4 --schedule linear --warmup 20 --draws 2

Truth: every order trained, or a random sample and what anybody chose. Quality: the share of the gap
between the median and the best of these orders (1: as good as the best, 0: no better than a random
one), and the percentile. Cost: training runs of all sources. Random search keeps the best of B
orders that it trains. "networks" are small regressions in float64; a language model is trained in
float32. Resumable: draws that are there are kept, and get what they lack.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).parent))
from common import all_draws, objectives_of, rows_of, save, summary

import lietoolkit as lt
from lietoolkit.geometry.cost import metered
from lietoolkit.order.baselines import baseline_orders
from lietoolkit.order.effort import (
    PART,
    Effort,
    Rehearsal,
    batches_beside,
    choose_effort,
    thinnest,
)
from lietoolkit.order.recommend import rehearsal_lr
from lietoolkit.order.search import Searched, search_levels
from lietoolkit.order.studies import best_of_random
from lietoolkit.tasks.models import load_model
from lietoolkit.tasks.toys import network_start, networks
from lietoolkit.training.optimizers import optimizer_from

BUDGETS = (0.1, 0.3, 1.0, 3.0, 10.0)
TOLD = "solo gain of one gradient"
REPLAY = "replay"
RANDOM = range(1, 17)


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    for path in args.again:
        result = json.loads(path.read_text(encoding="utf-8"))
        keep_searches(result)
        save(path, result)
    if args.again:
        return
    cell = f"{args.model}-{args.objective}-n{args.sources}-k{args.steps}-{args.optimizer}"
    cell += f"-{args.schedule}" + (f"-lr{args.lr:g}" if args.lr else "")
    path = Path(args.out) / f"{cell}.json"
    result = all_draws(path, args, lambda draw: run_draw(args, draw, path.with_suffix("")))
    for seed, draw in result["draws"].items():
        if not args.sample and complete(args, int(seed), draw, path.with_suffix("")):
            save(path, result)
    keep_searches(result)
    save(path, result)
    table(result)


def keep_searches(result: dict) -> None:
    """Search every draw as "auto" does now."""
    for draw in tqdm(result["draws"].values(), desc="searches"):
        draw["auto"] = {aim: search_again(result, draw, m) for m, aim in enumerate(draw["targets"])}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="networks")
    parser.add_argument("--objective", default="sft", choices=["lm", "sft", "dpo"])
    parser.add_argument("--data", help="folder of JSONL files; default: generated families")
    parser.add_argument("--sources", type=int, default=5)
    parser.add_argument("--sample", type=int, default=0, help="random orders; 0: all there are")
    parser.add_argument("--targets", type=int, default=3, help="of a language model; else 1")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--optimizer", default="adamw", choices=["sgd", "momentum", "adamw"])
    parser.add_argument("--lr", type=float, help="default: from --eta-lambda")
    parser.add_argument("--eta-lambda", type=float, default=0.2, help="lr times curvature")
    parser.add_argument("--schedule", default="constant", choices=["constant", "linear", "cosine"])
    parser.add_argument("--warmup", type=int, default=0)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument(
        "--from-end", action=argparse.BooleanOptionalAction, default=True,
        help="plan from the end as well, which costs about as much as the truth, and replay all "
        "orders, which holds many vectors as large as the model",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="out/frontier")
    parser.add_argument(
        "--again", nargs="*", type=Path, default=[], metavar="FILE",
        help="nothing is trained: search again in results that are there, after a change of search",
    )  # fmt: skip
    return parser.parse_args()


def run_draw(args: argparse.Namespace, draw: int, folder: Path) -> dict:
    sources, targets, theta = material(args, args.seed + draw)
    names = list(sources)
    rule = lt.step_size(sources, theta)
    lr = args.lr or args.eta_lambda / max(rule.lambda_max.values())
    run = {"schedule": args.schedule, "warmup": args.warmup}
    kept = {**run, "folder": f"{folder}-{draw}", "progress": True}
    settings = (theta, lr, args.steps, args.optimizer)
    every = itertools.permutations(names)
    if args.sample:
        pick = random.Random(args.seed + draw)
        every = (pick.sample(names, len(names)) for _ in range(args.sample))
    orders = [list(order) for order in every]
    losses = lt.run_schedules(
        sources, targets, theta, orders, lr, args.steps, args.optimizer, **kept
    )
    solo = lt.run_schedules(
        sources, sources | targets, theta, [[n] for n in names], lr, args.steps, args.optimizer,
        **kept,
    )  # fmt: skip
    # The same told by one gradient of each source, held for the stage.
    told = lt.run_schedules(
        sources, targets, theta, [[n] for n in names], lr, args.steps, args.optimizer, sweeps=1,
        **kept,
    )  # fmt: skip
    unit = len(names) * args.steps
    plans: dict[str, dict] = {}
    for m, (aim, target) in enumerate(targets.items()):
        found = plans[aim] = {}

        def note(planner: str, order: list[str], cost: float, found: dict = found) -> None:
            found[planner] = {"order": order, "cost": cost / unit}

        # The stage commutator is for pairs; on a language model it costs more than it finds.
        for method in ("local", "stage") if args.model == "networks" else ("local",):
            t = lt.tournament(sources, target, *settings[:3], method, args.optimizer, **run)
            note(f"tournament, {method}", t.best_order("exact"), t.cost.total)
        figures = {
            **t.gradients,
            "solo gain": {n: -float(solo[i, len(names) + m]) for i, n in enumerate(names)},
            TOLD: {n: -float(told[i, m]) for i, n in enumerate(names)},
        }
        for name, baseline in baseline_orders(figures).items():
            price = len(names) * (args.steps if name.startswith("solo gain,") else 1)
            note(name, baseline["order"], price)
        for sweeps in sorted({1, math.ceil(PART * args.steps)}) if args.from_end else []:
            stable = stable_lr(args, lr, rule.lambda_max, sweeps)
            plan = lt.plan_from_end(
                sources, target, theta, stable, *settings[2:], sweeps, effort="exact", **run
            )
            note(f"from the end, exact, m={sweeps}", plan.order, plan.cost.total)
    found = {
        "lr": lr,
        "lambda_max": rule.lambda_max,
        "start": {n: float(s.loss(theta)) for n, s in (sources | targets).items()},
        # What a stage does to its own source: it should learn.
        "own": {n: float(solo[i, i]) for i, n in enumerate(names)},
        "targets": list(targets),
        "orders": orders,
        "losses": losses.tolist(),
        "rehearsals": {},
        "plans": plans,
    }
    if args.sample:
        beside(args, found, draw)
        follow(args, found, rehearser(args, found, sources, targets, theta, kept["folder"]))
    return found


def complete(args: argparse.Namespace, seed: int, draw: dict, folder: Path) -> bool:
    """Make the tournaments, rehearsals and replays that the draw lacks; whether there were any."""
    missing = beside(args, draw, seed)
    replayed = not args.from_end or all(REPLAY in plans for plans in draw["plans"].values())
    if not replayed:
        replay(args, draw, *material(args, args.seed + seed))
    lacks = [r for r in rehearsals_of(vars(args))[:-1] if r.label not in draw["rehearsals"]]
    if lacks:
        rehearsed = rehearser(args, draw, *material(args, args.seed + seed), f"{folder}-{seed}")
        for r in lacks:
            draw["rehearsals"][r.label] = {
                "lr": stable_lr(args, draw["lr"], draw["lambda_max"], r.gradients),
                "losses": rehearsed(draw["orders"], r),
            }
    return bool(lacks) or not replayed or missing


def beside(args: argparse.Namespace, draw: dict, seed: int) -> bool:
    """The tournaments of few batches that "auto" begins with at small budgets."""
    result = {"settings": vars(args)}
    counts = {_batches_beside(result, budget, args.sources) for budget in BUDGETS}
    lacks = sorted(n for n in counts if not all(_local(n) in p for p in draw["plans"].values()))
    if not lacks:
        return False
    sources, targets, theta = material(args, args.seed + seed)
    unit = args.sources * args.steps
    for n, (aim, target) in itertools.product(lacks, targets.items()):
        read = {name: source.shortened(n) for name, source in sources.items()}
        t = lt.tournament(read, target, theta, draw["lr"], args.steps)
        plan = {"order": t.best_order("exact"), "cost": t.cost.total / unit}
        draw["plans"][aim][_local(n)] = plan
    return True


def replay(
    args: argparse.Namespace, draw: dict, sources: dict, targets: dict, theta: torch.Tensor
) -> None:
    """The order with the lowest replayed loss, from as few rows or gradients as rehearsals have."""
    of_model = args.model != "networks"
    read = {name: s.thinned(thinnest(args.rows)) for name, s in sources.items()}
    how = (1, args.batches) if of_model else (round(1 / PART), 1)
    with metered() as cost:
        losses = lt.replay_orders(
            read, targets, theta, draw["orders"], draw["lr"], args.steps, args.optimizer, how[0],
            curvature=how[1], schedule=args.schedule, warmup=args.warmup, progress=of_model,
        )  # fmt: skip
    # Each target alone would have paid for its own losses only.
    price = (cost.total - cost.losses * (1 - 1 / len(targets))) / (len(sources) * args.steps)
    for m, aim in enumerate(draw["targets"]):
        order = draw["orders"][int(losses[:, m].argmin())]
        draw["plans"][aim][REPLAY] = {"order": order, "cost": price}


def rehearser(
    args: argparse.Namespace, draw: dict, sources: dict, targets: dict, theta: torch.Tensor,
    folder: str,
) -> Callable[[list[list[str]], Rehearsal], list[list[float]]]:  # fmt: skip
    """What gives the losses of all targets after orders of a draw, however stages are stood for."""

    def rehearsed(orders: list[list[str]], r: Rehearsal) -> list[list[float]]:
        read = {name: source.thinned(r.thin) for name, source in sources.items()}
        return lt.run_schedules(
            read, targets, theta, orders,
            stable_lr(args, draw["lr"], draw["lambda_max"], r.gradients),
            args.steps, args.optimizer, sweeps=r.gradients, schedule=args.schedule,
            warmup=args.warmup, folder=folder, progress=len(orders) > 1,
        ).tolist()  # fmt: skip

    return rehearsed


def stable_lr(args: argparse.Namespace, lr: float, lambda_max: dict, gradients: int) -> float:
    """The step size of a rehearsal."""
    optimizer = optimizer_from(args.optimizer)
    return rehearsal_lr(lr, optimizer, max(lambda_max.values()), gradients, args.steps)


def follow(args: argparse.Namespace, draw: dict, rehearsed: Callable) -> None:
    """Of a sample: try what the searches ask for, and train what anybody chose.

    Kept as ``draw["tried"][label][order]``, the losses of all targets.
    """
    draw["tried"] = {r.label: {} for r in rehearsals_of(vars(args))}
    result = {"settings": vars(args)}

    def ask(order: str, label: str) -> None:
        named = [draw["orders"][0][int(i)] for i in order]
        draw["tried"][label][order] = rehearsed([named], Rehearsal.of(label))[0]

    for m, aim in enumerate(draw["targets"]):
        searched = search_again(result, draw, m, ask)
        orders = [tries[-1].partition(":")[2] for tries in searched.values()]
        orders += [_digits(draw, plan["order"]) for plan in draw["plans"][aim].values()]
        known = _tables(result, draw, m)[str(args.steps)]
        for order in dict.fromkeys(orders):
            if tuple(map(int, order)) not in known:
                ask(order, str(args.steps))


def rehearsals_of(settings: dict) -> list[Rehearsal]:
    """All that "auto" may use at any budget; the last one is the run itself."""
    efforts = [_effort({"settings": settings}, budget, settings["sources"]) for budget in BUDGETS]
    found = {r for effort in efforts if effort.planner == "search" for r in effort.levels}
    return sorted(found, key=lambda r: r.cost(settings["steps"]))


def material(args: argparse.Namespace, seed: int) -> tuple:
    """Sources, targets and the start of one draw."""
    if args.model == "networks":
        made = networks(args.sources + 1, seed)
        names = [f"s{i}" for i in range(args.sources)]
        return dict(zip(names, made, strict=False)), {"target": made[-1]}, network_start(seed)
    model, tokenizer = load_model(args.model)
    space = lt.ParameterSpace(model)
    count = args.batches * args.rows
    train = rows_of(args.objective, args.data, "train", seed, count)
    held = rows_of(args.objective, args.data, "eval", seed, count)
    pick = random.Random(seed)
    names = sorted(pick.sample(sorted(train), args.sources))
    aims = sorted(pick.sample(sorted(held), args.targets))
    sizes = (args.rows, args.batches, seed, args.max_length)
    sources = objectives_of(space, tokenizer, args.objective, train, names, *sizes)
    targets = objectives_of(space, tokenizer, args.objective, held, aims, *sizes)
    return sources, {f"{aim} (target)": targets[aim] for aim in aims}, space.vector()


def standings(result: dict) -> dict[str, dict[str, list[float]]]:
    """Gap share, percentile and cost of every planner; one number a draw and target."""
    found: dict[str, dict[str, list[float]]] = {}
    for draw in result["draws"].values():
        losses = np.array(draw["losses"])
        among = {_digits(draw, order) for order in draw["orders"]}
        for m, aim in enumerate(draw["targets"]):
            column, true = losses[:, m], _tables(result, draw, m)[str(result["settings"]["steps"])]
            gap = np.median(column) - column.min()

            def note(planner: str, loss: float, percentile: float, cost: float,
                     column: np.ndarray = column, gap: float = gap) -> None:  # fmt: skip
                row = found.setdefault(planner, {"gap share": [], "percentile": [], "cost": []})
                row["gap share"].append(float((np.median(column) - loss) / gap))
                row["percentile"].append(float(percentile))
                row["cost"].append(float(cost))

            for planner, plan in (draw["plans"][aim] | searched(result, draw, m)).items():
                order = _digits(draw, plan["order"])
                loss = true[tuple(map(int, order))]
                others = len(column) - (order in among)
                note(planner, loss, 100 * (column > loss).sum() / others, plan["cost"])
            for b in (b for b in RANDOM if b <= len(column)):
                note(f"random, best of {b}", best_of_random(column, b), 100 * b / (b + 1), b)
    return found


def searched(result: dict, draw: dict, m: int) -> dict[str, dict]:
    """What "auto" would choose at every budget, and what it costs."""
    names = draw["orders"][0]
    found = {}
    for budget, search in searches(result, draw, m):
        local = first_guess(result, draw, m, budget)
        found[f"auto, budget {budget:g}"] = local if search is None else {
            "order": [names[i] for i in search.order], "cost": local["cost"] + search.spent,
        }  # fmt: skip
    return found


def searches(result: dict, draw: dict, m: int) -> Iterator[tuple[float, Searched | None]]:
    """The search of "auto" at every budget, as it is kept."""
    tables, names = _tables(result, draw, m), draw["orders"][0]
    for budget in BUDGETS:
        effort = _effort(result, budget, len(names))
        if effort.planner != "search":
            yield budget, None
            continue
        kept = draw["auto"][draw["targets"][m]][f"{budget:g}"]
        tries = [(int(at), list(map(int, order))) for at, order in (t.split(":") for t in kept)]
        *tries, (_, chosen) = tries
        losses = [tables[effort.levels[at].label][tuple(order)] for at, order in tries]
        levels, tried = map(list, zip(*tries, strict=True))
        costs = tuple(r.cost(result["settings"]["steps"]) for r in effort.levels)
        yield budget, Searched(chosen, tried, losses, levels, costs, (1.0,) * len(names))


def search_again(
    result: dict, draw: dict, m: int, ask: Callable[[str, str], None] | None = None
) -> dict[str, list[str]]:
    """What "auto" tries at every budget, from the rehearsals and true runs that are kept.

    Each try is its level and order, "2:03142"; the last entry is the order taken. ``ask`` is told
    of an order that is not kept, and sees to it.
    """
    names = draw["orders"][0]

    def loss(order: list[int], label: str) -> float:
        if ask is not None and tuple(order) not in _tables(result, draw, m)[label]:
            ask("".join(map(str, order)), label)
        return _tables(result, draw, m)[label][tuple(order)]

    found = {}
    for budget in BUDGETS:
        guess = first_guess(result, draw, m, budget)
        pairs = [names.index(n) for n in guess["order"]]
        effort = _effort(result, budget, len(names))
        if effort.planner != "search":
            continue
        # As order/recommend.py begins.
        search = search_levels(
            lambda order, at, levels=effort.levels: loss(order, levels[at].label),
            len(names), effort.budget,
            [r.cost(result["settings"]["steps"]) for r in effort.levels],
            [pairs, pairs[::-1]], lengths=[1.0] * len(names),
        )  # fmt: skip
        tries = [*zip(search.levels, search.tried, strict=True), (0, search.order)]
        found[f"{budget:g}"] = [f"{at}:{''.join(map(str, order))}" for at, order in tries]
    return found


def _effort(result: dict, budget: float, sources: int) -> Effort:
    settings = result["settings"]
    of_model = settings["model"] != "networks"
    read = {name: settings[name] if of_model else 1 for name in ("batches", "rows")}
    return choose_effort(sources, settings["steps"], settings["optimizer"], budget, **read)


def first_guess(result: dict, draw: dict, m: int, budget: float) -> dict:
    """The order of the tournament that "auto" begins with, and what it cost."""
    n = _batches_beside(result, budget, len(draw["orders"][0]))
    return draw["plans"][draw["targets"][m]][_local(n)]


def _batches_beside(result: dict, budget: float, sources: int) -> int | None:
    """How many batches the tournament of "auto" reads; None: all."""
    s = result["settings"]
    if s["optimizer"] == "sgd" or s["model"] == "networks":
        return None
    n = batches_beside(sources, [s["batches"]], sources * s["steps"], s["batches"], budget)
    return None if n == s["batches"] else n


def _local(batches: int | None) -> str:
    if batches is None:
        return "tournament, local"
    return f"tournament, {batches} batch{'es' if batches > 1 else ''}"


def _tables(result: dict, draw: dict, m: int) -> dict[str, dict[tuple[int, ...], float]]:
    """Losses of all orders by how a stage was stood for, ``Rehearsal.label``."""
    names = draw["orders"][0]
    orders = [tuple(map(names.index, order)) for order in draw["orders"]]
    rows = {label: row["losses"] for label, row in draw["rehearsals"].items()}
    rows[str(result["settings"]["steps"])] = draw["losses"]
    tables = {x: {o: row[m] for o, row in zip(orders, r, strict=True)} for x, r in rows.items()}
    for x, tried in draw.get("tried", {}).items():
        found = {tuple(map(int, order)): losses[m] for order, losses in tried.items()}
        tables.setdefault(x, {}).update(found)
    return tables


def _digits(draw: dict, order: list[str]) -> str:
    """An order as places in the first one, "03142"; up to ten sources."""
    return "".join(str(draw["orders"][0].index(name)) for name in order)


def table(result: dict) -> None:
    """Print every planner by its cost, with 95 % bootstrap intervals over draws."""
    rows = standings(result)
    print(f"{'planner':38}{'runs':>7}{'gap share':>11}{'95 % interval':>17}{'percentile':>12}  n")
    for planner in sorted(rows, key=lambda p: np.mean(rows[p]["cost"])):
        row = rows[planner]
        mean, low, high = summary(row["gap share"])
        print(
            f"{planner:38}{np.mean(row['cost']):>7.2f}{mean:>11.2f}"
            f"{f'{low:.2f} to {high:.2f}':>17}{np.mean(row['percentile']):>12.0f}"
            f"{len(row['cost']):>3}"
        )


if __name__ == "__main__":
    main()
