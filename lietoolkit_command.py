"""What the command ``lietoolkit`` starts: it loads the package, which takes a second or two.

Outside the package, because importing any part of that loads torch first.
"""

import signal


def main() -> None:
    """Load the command line and run it; Ctrl-C while loading ends the process without a word."""
    usual = signal.getsignal(signal.SIGINT)
    # Nothing is at stake yet, and libraries that are half loaded would answer with a traceback.
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lietoolkit.cli import main as run

    signal.signal(signal.SIGINT, usual)
    run()
