"""One module per source format; see `fwdata.api` for the contract."""
