"""Training: the loop and what it needs.

build       recipe + store sizes -> model
optim       AdamW, schedule, float32 masters
loop        the step, exact resume
checkpoint  whole or absent
folder      the run folder and when a run may continue in it
validate    open-loop action error
logs        log.jsonl, TensorBoard, progress
run         all of it for one command
"""
