"""transformers without its bars and warnings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no warnings from transformers inside; restored after."""
    from transformers import modeling_gguf_pytorch_utils as gguf_reader
    from transformers.utils import logging as settings

    verbosity, bars = settings.get_verbosity(), settings.is_progress_bar_enabled()
    reader_bar = gguf_reader.tqdm  # its own bar, which no setting reaches
    settings.set_verbosity_error()
    settings.disable_progress_bar()
    gguf_reader.tqdm = partial(reader_bar, disable=True)
    try:
        yield
    finally:
        gguf_reader.tqdm = reader_bar
        settings.set_verbosity(verbosity)
        if bars:
            settings.enable_progress_bar()
