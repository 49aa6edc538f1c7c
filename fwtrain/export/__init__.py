"""Trained runs in other people's formats: one safetensors file, lerobot `fastwam` folders, official `.pt`
checkpoints, RoboTwin policies."""

from fwtrain.export.lerobot import export_lerobot
from fwtrain.export.model import export_model
from fwtrain.export.official import export_official
from fwtrain.export.robotwin import export_robotwin

__all__ = ["export_lerobot", "export_model", "export_official", "export_robotwin"]
