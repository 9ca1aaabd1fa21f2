"""Kill a verified plan, or a training, at random moments, run it again, and compare every number.

    python scripts/kill_and_resume.py --kills 100
    python scripts/kill_and_resume.py --kills 20 --command train
    python scripts/kill_and_resume.py --kills 20 --processes 4

Each round starts in an empty folder with `lietoolkit plan --verify` or `lietoolkit train`, kills it
(SIGKILL) after a random part of an undisturbed run's time, and repeats that until it has been
killed as often as asked; then the same command runs to its end, and `plan.json` or `train.json`
must hold exactly the numbers of the undisturbed run. Of several processes that plan together, one
is killed, and the others must end by themselves within a minute. The slow imports happen once;
every run is a fork (POSIX only).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

SETTINGS = {
    "plan": (
        "--steps", "1", "--optimizer", "sgd", "--lr", "0.01", "--verify", "16", "--verify-steps",
        "1", "--verify-steps", "3", "--batch-size", "4", "--no-report", "--device", "cpu",
    ),
    "train": (
        "--steps", "8", "--lr", "0.001", "--batch-size", "4", "--device", "cpu", "--budget", "2",
        "--save_steps", "2", "--disable_tqdm", "True",
    ),
}  # fmt: skip
# What a finished run leaves.
RESULT = {"plan": "plan.json", "train": "train.json"}
MODULES = {
    "plan": ("lietoolkit.verify", "lietoolkit.tasks.batches"),
    "train": ("trl", "trl.trainer.sft_trainer", "peft", "datasets", "lietoolkit.trainers.run"),
}
# Seconds in which processes must notice that one of them was killed.
ALONE = 60
# What may differ between two runs of the same plan.
TIMES = ("seconds",)


def little_model(folder: Path) -> Path:
    """A one-layer random Llama with the course model's tokenizer, in a folder."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from lietoolkit.tasks.models import course_path

    tokenizer = AutoTokenizer.from_pretrained(course_path())
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128,
        initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def start(folder: Path, command: str, arguments: tuple[str, ...], count: int = 1) -> list[int]:
    """Fork children that run the command line in a folder together; their process ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    children = []
    for number in range(count):
        child = os.fork()
        if not child:
            os.environ |= {"RANK": str(number), "WORLD_SIZE": str(count), **address}
            run(folder, command, arguments)
        children.append(child)
    return children


def run(folder: Path, command: str, arguments: tuple[str, ...]) -> NoReturn:
    """Run the command line in this child, and end it."""
    code = 1
    try:
        os.chdir(folder)
        with open("log", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.argv = ["lietoolkit", command, *arguments, "--out", "out"]
        from lietoolkit.cli import main

        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        os._exit(code)


def finish(children: list[int], seconds: float = 3600) -> list[int]:
    """Wait for children; their exit codes, negative when killed. Who takes longer is stopped."""
    deadline = time.monotonic() + seconds
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        for child in children:
            if child not in codes and (done := os.waitpid(child, os.WNOHANG))[0]:
                codes[child] = os.waitstatus_to_exitcode(done[1])
            elif child not in codes and time.monotonic() > deadline:
                os.kill(child, signal.SIGTERM)
        time.sleep(0.01)
    return [codes[child] for child in children]


def numbers(folder: Path, command: str) -> str:
    """All of the result but the clock, as text: floats in JSON come back bit by bit."""
    found = json.loads((folder / "out" / RESULT[command]).read_text())
    kept = {key: value for key, value in found.items() if key not in TIMES}
    return json.dumps(kept, sort_keys=True)


def whole(folder: Path) -> bool:
    """Whether our files are absent or complete: a kill never leaves half of one."""
    try:
        for path in (folder / "out" / name for name in RESULT.values()):
            if path.exists():
                json.loads(path.read_text())
    except ValueError:
        return False
    return True


def kept(folder: Path, command: str) -> int:
    """Orders tried or trained so far; for a training, its checkpoints."""
    if command == "train":
        return len(list(folder.glob("out/checkpoint-*")))
    return sum(1 for file in folder.rglob("orders-*.jsonl") for _ in file.open())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--command", choices=SETTINGS, default="plan")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="of a plan")
    parser.add_argument("--model", help="default: a random one of one layer, for speed")
    args = parser.parse_args()
    for name in ("torch", "transformers", "transformers.models.llama.modeling_llama", "typer",
                 "lietoolkit.cli", "lietoolkit.tasks.models", "lietoolkit.tasks.generated",
                 *MODULES[args.command]):  # fmt: skip
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    # By default forks share one lock, which stays shut when its holder is killed.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as root:
        arguments = (
            "--model",
            args.model or str(little_model(Path(root) / "model")),
            *SETTINGS[args.command],
        )
        calm = Path(root) / "calm"
        calm.mkdir()
        begin = time.perf_counter()
        if any(finish(start(calm, args.command, arguments, args.processes))):
            sys.exit((calm / "log").read_text())
        seconds = time.perf_counter() - begin
        expected = numbers(calm, args.command)
        same = kills = early = 0
        while kills < args.kills:
            folder = Path(root) / f"round-{kills + early}"
            folder.mkdir()
            children = start(folder, args.command, arguments, args.processes)
            while args.processes > 1 and not (folder / "out").exists():
                time.sleep(0.01)  # until they have found each other, a launcher must end them
            time.sleep(draw.uniform(0, seconds))
            victim = draw.randrange(args.processes)
            os.kill(children[victim], signal.SIGKILL)
            codes = finish(children, ALONE)
            if codes[victim] != -signal.SIGKILL:
                early += 1  # it had ended before: no kill, not counted
                continue
            kills += 1
            ended = -signal.SIGTERM not in codes
            found, complete = kept(folder, args.command), whole(folder)
            again = start(folder, args.command, arguments, args.processes)
            resumed = ended and not any(finish(again))
            same += complete and resumed and numbers(folder, args.command) == expected
            print(f"kill {kills}: {found} results kept, {same} of {kills} identical", flush=True)
    print(f"{same} of {kills} resumes identical ({seconds:.1f} s a run, {early} runs ended first)")
    if same != kills:
        sys.exit(1)


if __name__ == "__main__":
    main()
