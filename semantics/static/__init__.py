"""Static analysis: what can be said of a program from its jaxpr, before anything runs."""
