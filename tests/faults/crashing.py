"""The command line in a process that kills itself at a given moment:
`crashing.py MOMENT N [MILLISECONDS] -- ARGV`.

A kill from another process arrives at an uncertain moment. A kill from inside is equal for the
kernel and the files, and is always at the same moment.
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
    """Call `then(*args)` after the `count`-th call of `target.name`."""
    original, calls = getattr(target, name), [0]

    def wrapped(*args, **kwargs):
        calls[0] += 1
        result = original(*args, **kwargs)
        if calls[0] == count:
            then(*args)
        return result

    setattr(target, name, wrapped)


def each(target, name: str, then) -> None:
    """Call `then()` after every call of `target.name`."""
    original = getattr(target, name)

    def wrapped(*args, **kwargs):
        result = original(*args, **kwargs)
        then()
        return result

    setattr(target, name, wrapped)


def undone(path, content, write=workdir.write_json) -> None:
    """Die just before a part is recorded as done."""
    if path.name == "done.json":
        die()
    write(path, content)


def soon(milliseconds: int) -> None:
    """Die after a delay, at any point of the process."""
    threading.Timer(milliseconds / 1000, die).start()


def arm(moment: str, count: int, milliseconds: int = 0) -> None:
    if moment == "line":
        after(MetricsLog, "write", count, lambda *_: die())
    elif moment == "save":  # orbax writes in the background: it has just started
        after(checkpoint, "save", count, lambda *_: die())
    elif moment == "writing":  # during the background write of orbax
        after(checkpoint, "save", count, lambda *_: soon(milliseconds))
    elif moment == "later":  # anywhere: in a step, a validation, a log line, the report
        after(MetricsLog, "write", count, lambda *_: soon(milliseconds))
    elif moment == "clock":  # sets the clock back an hour at each line
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
