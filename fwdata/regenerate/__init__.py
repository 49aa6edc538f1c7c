"""Recordings made anew by replaying their actions in the simulator they are from.

    contract   what a source offers for it (`converters/_<source>_replay.py`)
    run        plan, worker processes, resume, and what is written beside the recordings

Layout of `OUT/<suite>_no_noops`, which `fwdata convert` reads like any other regenerated set:

    <task>_demo.hdf5           one file per task, whole or absent
    <suite>_metainfo.json      {task text: {demo_<i>: {success, initial_state, reason of a failure}}}
    regenerate.json            settings, simulator versions, counts and failures
    .regenerate/               settings, records of finished tasks, demonstrations of unfinished ones
"""
