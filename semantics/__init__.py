"""What programs mean: exact denotations."""

from .meaning import Measure, meaning
