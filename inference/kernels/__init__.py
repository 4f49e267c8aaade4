"""Markov kernels that keep the measure of a program, and what they are joined by."""
