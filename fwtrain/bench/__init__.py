"""Measured speed of training and inference, each figure beside the same work done another way in the same process.

cases      model sizes and a batch of LIBERO's shapes
timing     interleaved repetitions, CPU time
lerobot    lerobot's own Fast-WAM core with our weights
unshared   idm without sharing frame 0
train      `fwtrain bench train`
latency    `fwtrain bench latency`
computed   expected full-size steps on GPUs, from counted FLOPs and bytes

`fwtrain bench serve` measures a server under load: `fwtrain.serve.load`.
"""
