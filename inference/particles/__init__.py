"""Weighted particles: importance sampling and sequential Monte Carlo."""
