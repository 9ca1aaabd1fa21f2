"""The one error that a user's input can cause."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message names the file and line, or the argument; what was expected; what was found; and
    what to do. The command line prints it and exits with code 2.
    """


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn every kind of "out of memory" inside into an InputError that says what to lower."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _too_large(error) from error
    except RuntimeError as error:
        # The CPU allocator knows no error class of its own.
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            raise _too_large(error) from error
        raise


def _too_large(error: BaseException) -> InputError:
    detail = str(error).splitlines()[0] if str(error) else "no detail given"
    return InputError(
        f"out of memory ({detail}): lower batch_size, max_length or microbatch, or choose fewer "
        "parameters"
    )
