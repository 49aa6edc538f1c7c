"""Stores, caches and policies on the Hugging Face hub: what is pushed names itself, what is pulled is checked.

hub      files to and from a repository, resumable, and one sentence for whatever goes wrong
card     the dataset card, from a store's metadata
stores   `fwdata push` and `fwdata pull`
"""
