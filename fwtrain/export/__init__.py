"""Trained runs in other people's formats: lerobot `fastwam` folders and official `.pt` checkpoints."""

from fwtrain.export.lerobot import export_lerobot
from fwtrain.export.official import export_official

__all__ = ["export_lerobot", "export_official"]
