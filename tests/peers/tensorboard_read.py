"""Reads a run's event files with the real TensorBoard and compares them with the run's own events.

    python3 -m venv /tmp/tensorboard && /tmp/tensorboard/bin/pip install tensorboard==2.21.0 'setuptools<81'
    /tmp/tensorboard/bin/python tests/peers/tensorboard_read.py .retort/runs/<id>

Ends with status 0 if TensorBoard sees every metric of `events.jsonl`, and nothing else.
"""

import collections
import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator


def as_float32(value):
    """What is left of a number in 32 bits."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def logged(run):
    """(node, tag) -> [(step, value)], as `events.jsonl` has it."""
    series = collections.defaultdict(list)
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "metrics":
            for tag, value in event["values"]:
                if value is not None:
                    series[event["node"], tag].append((event["step"], as_float32(value)))
    return dict(series)


def shown(run):
    """(node, tag) -> [(step, value)], as TensorBoard reads it."""
    series = {}
    for folder in sorted((run / "tensorboard").iterdir()):
        accumulator = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            series[folder.name, tag] = [(event.step, event.value) for event in accumulator.Scalars(tag)]
    return series


def main():
    run = pathlib.Path(sys.argv[1])
    ours, theirs = logged(run), shown(run)
    for (node, tag), values in sorted(theirs.items()):
        print(f"{node} {tag}: {len(values)} values, steps {values[0][0]} to {values[-1][0]}, last {values[-1][1]:.6g}")
    if ours != theirs:
        sys.exit(f"TensorBoard and events.jsonl differ in {sorted(set(ours) ^ set(theirs)) or 'their values'}")
    if not ours:
        sys.exit("the run has no metrics")
    print(f"{len(ours)} series agree")


if __name__ == "__main__":
    main()
