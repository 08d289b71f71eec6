#!/usr/bin/env python3
"""Writes the tables of the bench `tables` with Arrow's own Parquet writer, on one thread: what a codec costs whoever calls it.

    mkdir /tmp/tables && KEEP=/tmp/tables cargo bench --workspace --bench tables
    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install pyarrow==26.0.1
    /tmp/peers/bin/python tests/peers/tables.py /tmp/tables

Megabytes of Arrow data a second of processor time, the best of three, and the file's length. Row groups are as long as ours.
The bench's own figures hold naming, sealing and syncing beside that.
"""

import pathlib
import sys
import tempfile
import time

import pyarrow
import pyarrow.parquet

WAYS = {
    "zstd 1": {"compression": "zstd", "compression_level": 1, "use_dictionary": False},
    "zstd 1, dictionaries": {"compression": "zstd", "compression_level": 1},
    "zstd -5": {"compression": "zstd", "compression_level": -5, "use_dictionary": False},
    "lz4": {"compression": "lz4", "use_dictionary": False},
    "snappy, its default": {"compression": "snappy"},
    "none": {"compression": "none", "use_dictionary": False},
}


def seconds(table, path, options):
    begun = time.process_time()
    pyarrow.parquet.write_table(table, path, row_group_size=8192, **options)
    return time.process_time() - begun


def main():
    pyarrow.set_cpu_count(1)
    print(f"pyarrow {pyarrow.__version__}, MB/s of a core, and the file's part of the data")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "table.parquet"
        for name in ["chunks", "pairs", "numbers", "tensors"]:
            table = pyarrow.parquet.read_table(pathlib.Path(sys.argv[1]) / f"{name}.parquet")
            mb = table.nbytes / 1e6
            for way, options in WAYS.items():
                best = min(seconds(table, path, options) for _ in range(3))
                print(f"{name:8} {mb:4.0f} MB  {way:22} {mb / best:5.0f}  {path.stat().st_size / mb / 1e4:3.0f} %", flush=True)


main()
