"""Exact inference: enumeration and dynamic programming, conjugate pairs."""
