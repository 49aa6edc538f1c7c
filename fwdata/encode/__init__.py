"""Everything that needs torch: the Wan2.2 VAE, the text encoders, and filling a store's latent and text caches."""
