"""The commands and their options as tables, and what "auto" chooses, both asked of the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from pipe_table import table

from lietoolkit.cli import app
from lietoolkit.order.effort import choose_effort

BUDGETS = (0.1, 0.5, 1.0, 2.0, 4.0, 10.0)
RUNS = (("sgd", 1), ("sgd", 5), ("sgd", 20), ("adamw", 1), ("adamw", 20), ("adamw", 100))


def commands() -> str:
    """Every command with what it does."""
    found: dict[str, str] = {}

    def walk(command: Any, name: str) -> None:
        if hasattr(command, "commands"):
            for part, inner in command.commands.items():
                walk(inner, f"{name} {part}")
        else:
            found[name] = (command.help or "").splitlines()[0]

    walk(typer.main.get_command(app), "lietoolkit")
    return table(["command", "what it does"], [[f"`{k}`", v] for k, v in found.items()])


def options(*path: str) -> str:
    """Options and arguments of one command, with their defaults."""
    command: Any = typer.main.get_command(app)
    for part in path:
        command = command.commands[part]
    rows = []
    for parameter in command.params:
        is_option = parameter.param_type_name == "option"
        names = [*parameter.opts, *parameter.secondary_opts] if is_option else [parameter.name]
        rows.append(
            [", ".join(f"`{n}`" for n in names), _default(parameter.default), parameter.help or ""]
        )
    return table(["option", "default", "meaning"], rows)


def _default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`"


def effort() -> str:
    """The planner that "auto" takes for five sources of 8 rows, by training and budget."""
    head = ["trained with", *(f"budget {budget:g}" for budget in BUDGETS)]
    rows = []
    for optimizer, steps in RUNS:
        cells = []
        for budget in BUDGETS:
            chosen = choose_effort(5, steps, optimizer, budget, rows=8)
            text = chosen.planner
            if chosen.planner == "search":
                words = [r.words(steps) for r in chosen.levels if r.cost(steps) <= budget]
                short = [w.removeprefix("with ").removesuffix(" a stage") for w in words]
                text = f"search: {', '.join(short)}"
            cells.append(text)
        rows.append([f"{optimizer}, {steps} step{'s' * (steps != 1)}", *cells])
    return table(head, rows)


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "options_plan": lambda: options("plan"),
    "options_train": lambda: options("train"),
    "options_report": lambda: options("report"),
    "options_doctor": lambda: options("doctor"),
    "options_course": lambda: options("course", "run"),
    "effort": effort,
}
