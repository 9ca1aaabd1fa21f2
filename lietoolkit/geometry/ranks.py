"""Several processes as one: who does which part, and how all of them come to know the result.

With one process, or where ``torch.distributed`` is not initialised, everything here is a plain
call. With several, each of them must make the same calls in the same order.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lietoolkit.errors import InputError
from lietoolkit.geometry.cost import Cost, book, metered

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Item = TypeVar("Item")
Result = TypeVar("Result")

# To find each other, and to send a vector that all are ready for.
JOIN = timedelta(minutes=5)
# Others may train for hours before they answer; one that has ended is noticed by its connection.
PATIENCE = timedelta(days=30)


class LostProcess(InputError):
    """Another process has ended, so that this one cannot go on."""


class _State:
    """Whether this process works for itself; the group of messages, and the world it is of."""

    alone = False
    messages: ProcessGroup | None = None
    world: ProcessGroup | None = None
    pieces: ProcessGroup | None = None  # over which vectors are cut into pieces


def size() -> int:
    """How many processes share the work; 1 without ``torch.distributed``, in ``alone`` and
    ``pieces``.
    """
    return _present() if whole() else 1


def _present() -> int:
    """How many processes there are to speak to."""
    if _State.alone or not dist.is_available() or not dist.is_initialized():
        return 1
    return dist.get_world_size()


def rank() -> int:
    """The number of this process, 0 to ``size() - 1``."""
    return dist.get_rank() if size() > 1 else 0


@contextmanager
def alone() -> Iterator[None]:
    """Share nothing inside: each process computes what it calls by itself.

    For scripts whose processes plan different things at the same time.

    >>> with alone():
    ...     size()
    1
    """
    before, _State.alone = _State.alone, True
    try:
        yield
    finally:
        _State.alone = before


@contextmanager
def pieces(group: ProcessGroup | None) -> Iterator[None]:
    """Inside, a vector is this process's piece of one that all processes of the group hold.

    No work is dealt out: all make every step of it together, and what sums over coordinates is
    ``summed``. For a model that is sharded over all processes; with None nothing changes.

    >>> with pieces(None):
    ...     summed(torch.ones(1)), of_pieces("mine")
    (tensor([1.]), ['mine'])
    """
    before = _State.pieces, _State.alone
    if group is not None:
        _State.pieces, _State.alone = group, False
    try:
        yield
    finally:
        _State.pieces, _State.alone = before


def whole() -> bool:
    """Whether vectors are whole: not inside ``pieces``."""
    return _State.pieces is None


def summed(value: Tensor) -> Tensor:
    """The sum of a tensor over the pieces of a vector; in ``pieces`` only, else as it is."""
    if _State.pieces is None:
        return value
    total = value.clone()
    with _lost():
        dist.all_reduce(total, group=_State.pieces)
    return total


def agreed(value: Tensor) -> Tensor:
    """In ``pieces`` what process 0 has, so that no rounding of its own sends one elsewhere."""
    if _State.pieces is None:
        return value
    same = value.clone()
    with _lost():
        dist.broadcast(same, 0, group=_State.pieces)
    return same


def of_pieces(value: Any) -> list[Any]:
    """In ``pieces`` the values of all processes, by rank, as ``gather``; else this one's alone."""
    return [value] if whole() else gather(value)


def piece() -> int:
    """The number of this process's piece in ``pieces``; else 0, as there is one."""
    return 0 if whole() else dist.get_rank()


@contextmanager
def together() -> Iterator[None]:
    """An error of one process inside is raised by all, instead of leaving the others to wait.

    Also a decorator. The error is marked as ``told``, for it needs to be printed once.
    """
    try:
        yield
    except LostProcess:
        raise
    except Exception as error:
        if not getattr(error, "told", False):
            _exchange("together", None, error)
        raise
    _exchange("together", None)


def mine(items: Sequence[Item]) -> Sequence[Item]:
    """The items that this process does in ``each``: every ``size()``-th one."""
    return items[rank() :: size()]


def each(items: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
    """``work(item)`` of every item, in their order, on every process; each does its share.

    Costs are booked on every process as if it had done all of it. Results travel, so they are
    small: tensors on the CPU and plain data. What is large is kept by the work itself, see
    ``broadcast``.

    Args:
        items: the same on every process.
        work: shares nothing itself, as if in ``alone``.

    >>> each([1, 2, 3], lambda n: n * n)
    [1, 4, 9]
    """
    if size() == 1:
        return [work(item) for item in items]
    found: list[Result] = []
    failed: Exception | None = None
    with metered() as own:
        share = mine(items)
        try:
            with alone():
                found += [work(item) for item in share]
        except Exception as error:
            failed = error
    spent = (own.gradients, own.hvps, own.losses)
    parts = _exchange("each", (found, spent), failed)
    for other, (_, cost) in enumerate(parts):
        if other != rank():
            book(Cost(*cost))
    return [parts[i % size()][0][i // size()] for i in range(len(items))]


def first(work: Callable[[], Result]) -> Result:
    """What ``work()`` gives on process 0, on every process; the others wait for it."""
    return each([None], lambda _: work())[0]


def gather(value: Any) -> list[Any]:
    """The values of all processes, by rank: small tensors on the CPU and plain data."""
    return _exchange("gather", value)


def broadcast(vector: Tensor | None, owner: int) -> Tensor:
    """The owner's tensor on every process; None where it is not known yet."""
    if size() == 1:
        assert vector is not None
        return vector
    own = owner == rank()
    shape = None
    if own:
        assert vector is not None
        shape = (vector.shape, vector.dtype, vector.device.type)
    shape, dtype, device = _exchange("broadcast", shape)[owner]
    data = vector if own and vector is not None else torch.empty(shape, dtype=dtype, device=device)
    with _lost():
        dist.broadcast(data, owner)
    return data


def check_same(call: str, settings: Callable[[], dict[str, Any]]) -> None:
    """Raise InputError unless a call was given the same on all processes.

    Args:
        call: what was called, for the message.
        settings: makes what is compared, by name; called only where there are several processes.
    """
    if _present() == 1:
        return
    own, *others = gather({name: repr(value) for name, value in settings().items()})
    for number, theirs in enumerate(others, 1):
        for name, value in theirs.items():
            if value != own.get(name):
                raise InputError(
                    f"{call}: expected the same {name} in every process, found {own.get(name)} in "
                    f"process 0 and {value} in process {number}; give all the same, or call inside "
                    "lietoolkit.geometry.ranks.alone()"
                )


@contextmanager
def from_environment(device: str = "auto") -> Iterator[None]:
    """Join the processes that torchrun, accelerate or the like has started, if any.

    Args:
        device: "auto", "cpu" or "cuda"; with CUDA each process takes the GPU of its number.

    Raises:
        InputError: more processes on this machine than it has GPUs.
    """
    named = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    if not named or os.environ["WORLD_SIZE"] == "1" or dist.is_initialized():
        yield
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        local, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= gpus:
            raise InputError(
                f"processes: expected at most one for each of {gpus} GPUs, found number {local}; "
                "start fewer, or give --device cpu"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=JOIN)
    _messages()
    yield
    # After an error the process ends anyway, and another that hangs must not hold it.
    dist.destroy_process_group()


def is_heard(error: Exception) -> bool:
    """Whether this process is the one to print an error: all that is not told, else process 0."""
    return rank() == 0 or not getattr(error, "told", False)


def wait_until_heard(error: Exception) -> None:
    """Wait until process 0 has printed an error that all were told.

    A launcher that sees one process fail stops the others at once.
    """
    if getattr(error, "told", False):
        with suppress(InputError):
            gather(None)


def _exchange(place: str, value: Any, error: Exception | None = None) -> list[Any]:
    """The values of all processes; raises, everywhere, the first error of any of them."""
    if _present() == 1:
        return [value]
    with _lost():
        found = _gathered((place, value, error and (type(error).__name__, str(error))))
    for number, (_, _, theirs) in enumerate(found):
        if theirs is not None:
            raised = error if number == dist.get_rank() and error is not None else _error(*theirs)
            raised.__dict__["told"] = True
            raise raised
    places = [theirs for theirs, _, _ in found]
    if len(set(places)) > 1:
        raise InputError(
            f"processes: expected the same calls in the same order in each, found {places}; "
            "call from all of them, or inside lietoolkit.geometry.ranks.alone()"
        )
    return [theirs for _, theirs, _ in found]


def _messages() -> ProcessGroup:
    """A group of its own: on the CPU whatever the vectors' backend is, and patient."""
    if _State.world is not dist.group.WORLD:
        _State.world = dist.group.WORLD
        _State.messages = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert _State.messages is not None
    return _State.messages


def _gathered(value: Any) -> list[Any]:
    """Plain data and tensors of all processes; bytes that come in cannot be more than that."""
    file = io.BytesIO()
    torch.save(value, file)
    own = torch.frombuffer(file.getbuffer(), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(_present())]
    dist.all_gather(sizes, torch.tensor([len(own)]), group=_messages())
    room = int(max(sizes))
    parts = [torch.zeros(room, dtype=torch.uint8) for _ in sizes]
    dist.all_gather(parts, torch.nn.functional.pad(own, (0, room - len(own))), group=_messages())
    files = (io.BytesIO(bytes(part[:n].numpy())) for part, n in zip(parts, sizes, strict=True))
    return [torch.load(file, map_location="cpu", weights_only=True) for file in files]


def _error(kind: str, words: str) -> Exception:
    """Another process's error, of its class where somebody here may wait for it."""
    classes: list[type[Exception]] = [InputError, *InputError.__subclasses__(), MemoryError]
    for known in [*classes, torch.OutOfMemoryError]:
        if known.__name__ == kind:
            return known(words)
    return RuntimeError(f"{kind}: {words}")


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise LostProcess(
            f"process {dist.get_rank()}: another process has ended ({reason}); see what it "
            "printed. Started again, finished orders are found if they are kept in a folder"
        ) from error
