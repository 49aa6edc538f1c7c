"""Benchmarks: each compares with a limit, or with another library, measured in the same run.

timing       CPU seconds
recordings   recordings of every source format at their real picture sizes, for want of real ones
convert      conversion against only reading and decoding, lerobot's own writer, and itself with two workers
read         random training windows against memory-mapped bytes and zarr-python
"""

from fwdata.bench.convert import ConvertBench, bench_convert
from fwdata.bench.read import bench_read
from fwdata.bench.recordings import SOURCES, write_recordings
from fwdata.bench.timing import Timing

__all__ = ["SOURCES", "ConvertBench", "Timing", "bench_convert", "bench_read", "write_recordings"]
