"""The command line in a process that dies at a chosen moment:
`crashing.py MOMENT N [MILLISECONDS] -- ARGV`.

A kill from outside hits whatever the process is doing then; one from inside, at the moment that
matters, is the same to the kernel and to the files, and a test with it cannot be late.
"""

import os
import signal
import sys
import threading
import time

from kdjax.cli import main
from kdjax.experiment.run import workdir
from kdjax.report.metrics_log import MetricsLog
from kdjax.train import checkpoint


def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def after(target, name: str, count: int, then) -> None:
    """Let the `count`-th call of `target.name` be followed by `then(*args)`."""
    original, calls = getattr(target, name), [0]

    def wrapped(*args, **kwargs):
        calls[0] += 1
        result = original(*args, **kwargs)
        if calls[0] == count:
            then(*args)
        return result

    setattr(target, name, wrapped)


def each(target, name: str, then) -> None:
    """Let every call of `target.name` be followed by `then()`."""
    original = getattr(target, name)

    def wrapped(*args, **kwargs):
        result = original(*args, **kwargs)
        then()
        return result

    setattr(target, name, wrapped)


def undone(path, content, write=workdir.write_json) -> None:
    """Die when a part is about to be declared done."""
    if path.name == "done.json":
        die()
    write(path, content)


def soon(milliseconds: int) -> None:
    """Die a little later, whatever this process is doing then."""
    threading.Timer(milliseconds / 1000, die).start()


def arm(moment: str, count: int, milliseconds: int = 0) -> None:
    if moment == "line":
        after(MetricsLog, "write", count, lambda *_: die())
    elif moment == "save":  # orbax writes in the background: it has just begun
        after(checkpoint, "save", count, lambda *_: die())
    elif moment == "writing":  # some time into what orbax writes in the background
        after(checkpoint, "save", count, lambda *_: soon(milliseconds))
    elif moment == "later":  # anywhere: in a step, a validation, a line, the report
        after(MetricsLog, "write", count, lambda *_: soon(milliseconds))
    elif moment == "clock":  # an hour back at each line
        clock, back = time.time, [0.0]
        time.time = lambda: clock() - back[0]

        def earlier():
            back[0] += 3600

        each(MetricsLog, "write", earlier)
    elif moment == "done":
        workdir.write_json = undone
    elif moment == "term":
        after(MetricsLog, "write", count, lambda *_: die(signal.SIGTERM))
    elif moment != "never":
        raise ValueError(moment)


if __name__ == "__main__":
    cut = sys.argv.index("--")
    moment, *numbers = sys.argv[1:cut]
    arm(moment, *map(int, numbers))
    sys.exit(main(sys.argv[cut + 1 :]))
