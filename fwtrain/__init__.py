"""Train Fast-WAM (arXiv 2603.16666) from cached latents."""
