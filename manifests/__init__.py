"""Dataset manifests (`*.yaml`) and training recipes (`recipes/*.yaml`): data only, read through fwdata and fwtrain."""
