"""The pump in several processes at once, to see whether one of them was the limit.

Owns those processes. Runs as `python -m ottla.bench.crowd HOST PORT` in each: a pickled load on
stdin, then a line to begin; a pickled result on stdout.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from ottla.bench import pump


def split(load: pump.Load, count: int) -> list[pump.Load]:
    """The same load in `count` parts, each with its share of the connections; none without."""
    parts = [load.requests[index::count] for index in range(count)]
    answers_max = max(1, load.answers_max // count)
    return [replace(load, requests=part, answers_max=answers_max) for part in parts if part]


def merged(results: Sequence[pump.Measured]) -> pump.Measured:
    """What several saw who ran at the same time."""
    return pump.Measured(
        answers=sum(one.answers for one in results),
        bytes_in=sum(one.bytes_in for one in results),
        bytes_out=sum(one.bytes_out for one in results),
        seconds=max(one.seconds for one in results),
        latencies=sorted(latency for one in results for latency in one.latencies),
        client_cpu_s=sum(one.client_cpu_s for one in results),
    )


def run(address: tuple[str, int], load: pump.Load, count: int) -> pump.Measured:
    """As pump.run, with `count` processes. Raises LoadFailed."""
    command = [sys.executable, "-m", "ottla.bench.crowd", address[0], str(address[1])]
    parts = split(load, count)
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in parts
    ]
    try:
        for worker, part in zip(workers, parts, strict=True):
            assert worker.stdin is not None
            pickle.dump(part, worker.stdin)
            worker.stdin.flush()
        for worker in workers:  # each has read its load and imported all there is
            assert worker.stdout is not None
            worker.stdout.readline()
        outputs = []
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(b"\n")
            worker.stdin.flush()
        outputs = [worker.communicate()[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    if not all(outputs):
        raise pump.LoadFailed("one of the load's processes failed")
    return merged([pickle.loads(output) for output in outputs])


def main(host: str, port: int) -> None:
    load: pump.Load = pickle.load(sys.stdin.buffer)
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    sys.stdin.buffer.readline()
    pickle.dump(pump.run((host, port), load), sys.stdout.buffer)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
