"""The `borelax` command: a thin face over the language, its inference and its models."""
