"""Triton kernels of entmax attention: one stage per file, leaves shared through ``tile`` and ``power``."""
