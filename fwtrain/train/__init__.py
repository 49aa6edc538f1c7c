"""Training: the loop and what it needs.

build       recipe + store sizes -> model, what of it is trained
passes      the forward and backward passes of a step, for one of several processes
parallel    several processes: ddp, fsdp
optim       AdamW, schedule, float32 masters; moments: its state in float32 or 8 bits
lora        adapters
loop        the step, exact resume
checkpoint  whole or absent; tensors: files written one tensor at a time
weights     trained and frozen parameters on disk, and the model they make
memory      what a recipe needs, counted without running it; plan: the table of it
folder      the run folder and when a run may continue in it
validate    open-loop action error
logs        log.jsonl, TensorBoard, progress
run         all of it for one command
"""
