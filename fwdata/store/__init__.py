"""The unified Zarr v3 store: the only place that knows how episodes, latents and text lie on disk.

    <name>.zarr/
      zarr.json               attributes.fwdata: layout version, rate, cameras, names, stitching, every decision
      plan/                   which recording goes into which part, fixed before the first byte is written
      parts/p00000/           up to 50 episodes; complete only when its zarr.json says so (written last)
        lowdim/{state,action,timestamp_ns,valid}
        details/{data,offset}               one JSON document per episode (instructions, decisions)
        cameras/<camera>/{data,offset,swapped}   recorded JPEG buffers, byte for byte
        cameras/<camera>/frames                  or raw pixels
        frames/stitched                          optional, materialised stitched images
      latents/<key>/p00000/{first,future,window_start}
      text/<key>/p00000/{data,offset,prompts}
      stats/                  zarr.json attributes: normalisation statistics

Every byte is covered by a checksum the reader checks (crc32c or zstd's) and by a sha256 in the part's attributes that
`fwdata verify` checks. All arrays are plain Zarr v3 with standard codecs; any Zarr reader opens them.
"""
