"""Actions that see the later frames alone."""

from fwtrain.variants import Mode, Variant

VARIANT = Variant("drafted", (Mode("drafted", ("future",), "joint"),))
