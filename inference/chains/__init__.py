"""Chains of a kernel: how they run, what they have drawn, and whether to trust it."""
