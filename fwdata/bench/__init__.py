"""Benchmarks: each compares with a limit, or with another library, measured in the same run.

timing       CPU seconds
recordings   recordings of every source format at their real image sizes, as no real ones are at hand
convert      conversion against only reading and decoding, lerobot's own writer, and itself with two workers
floor        only reading and decoding, in the worker processes that conversions are measured in
codecs       whole conversions with other codecs of pixels
whole        whole conversions and the command's start, in processes of their own
evidence     the whole command with and without measuring conventions, in turns (not imported here)
video        frames of kept video, at random and in order, by group length
storage      shards and rows behind a URL against the bare client (not imported here)
read         random training windows against memory-mapped bytes and zarr-python
encode       latents against the VAE alone and diffusers one clip at a time (not imported here: it needs torch)
"""

from fwdata.bench.convert import ConvertBench, bench_convert
from fwdata.bench.read import bench_read
from fwdata.bench.recordings import SOURCES, write_recordings
from fwdata.bench.timing import Timing
from fwdata.bench.video import VideoBench, bench_video

__all__ = [
    "SOURCES",
    "ConvertBench",
    "Timing",
    "VideoBench",
    "bench_convert",
    "bench_read",
    "bench_video",
    "write_recordings",
]
