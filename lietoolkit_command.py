"""What the command ``lietoolkit`` starts: it loads the package, which takes a second or two.

Outside the package, because importing any part of that loads torch first.
"""

import os
import signal


def main() -> None:
    """Load the command line and run it; Ctrl-C while loading ends the process without a word."""
    # GNU OpenMP's threads spin a millisecond before they sleep. Beside other work they spin in
    # vain, which makes a plan many times slower; alone it takes as long with a shorter spin.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    usual = signal.getsignal(signal.SIGINT)
    # Nothing is at stake yet, and libraries that are half loaded would answer with a traceback.
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lietoolkit.cli import main as run

    signal.signal(signal.SIGINT, usual)
    run()
