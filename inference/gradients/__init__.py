"""Gradients of expectations, and parameters that climb them."""
