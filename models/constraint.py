"""Constraints on generated text, as factors and proposals of a program.

A constraint restricts a language model to texts that match. What becomes of a text that is not finished when its
tokens run out must be said, for these are different measures:

- ``truncate``: it may be cut anywhere, as long as a match can still follow;
- ``condition_on_ending``: it must be a match by then: a factor at the end, that kills the others;
- ``reachable``: the same measure as ``condition_on_ending``, reached without dead ends: only tokens are proposed
  from which a match is still possible in the tokens that are left.

A match ends with the end-of-text token, or by itself when nothing could extend it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .automaton import TokenAutomaton, compile_regex
from .token_distribution import TokenDistribution

if TYPE_CHECKING:
    from .language_model import LanguageModel

TRUNCATIONS = ("truncate", "condition_on_ending", "reachable")
USES = ("both", "factor", "proposal")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constraint:
    """A token automaton, and how a program uses it.

    Attributes:
      automaton: what is allowed.
      truncation: "truncate", "condition_on_ending" or "reachable".
      use: "both" (draw from the allowed tokens and weight by the probability that the model gives them), "factor"
        (draw from the model, and kill what is not allowed) or "proposal" (the model stays the target; what is not
        allowed is drawn a hundred times less often, and weighted accordingly).
    """

    automaton: TokenAutomaton
    truncation: str = field(default="truncate", metadata={"static": True})
    use: str = field(default="both", metadata={"static": True})

    def __post_init__(self):
        for name, value, known in (("truncation", self.truncation, TRUNCATIONS), ("use", self.use, USES)):
            if value not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}; got {value!r}")

    @property
    def is_factor(self) -> bool:
        return self.use != "proposal"

    @property
    def must_end(self) -> bool:
        return self.is_factor and self.truncation != "truncate"

    def bias(self, state: Int[Array, ""], remaining: Int[Array, ""]) -> Float[Array, " U"]:
        """What to add to the logits of each class of tokens: zero if allowed, else minus infinity.

        Args:
          state: of the automaton.
          remaining: how many tokens can come after this one.
        """
        limit = remaining if self.truncation == "reachable" else None
        return jnp.where(self.automaton.allowed_columns(state, limit), 0.0, -jnp.inf)

    def proposal(
        self, logits: Float[Array, " V"], bias: Float[Array, " U"], forced
    ) -> TokenDistribution | None:
        """What to draw the next token from; None for the model itself."""
        if self.use == "factor":
            return None
        if self.use == "proposal":
            bias = jnp.maximum(bias, jnp.log(0.01))
        return TokenDistribution(logits, self.automaton.column, bias, forced)

    def check_reachable(self, max_tokens: int) -> None:
        """Raises ValueError if no text of so few tokens meets the constraint (where that is known already)."""
        steps = self.automaton.steps_to_accept
        if not self.must_end or isinstance(steps, jax.core.Tracer):
            return
        shortest = int(np.asarray(steps)[0])
        if shortest > max_tokens:
            raise ValueError(
                f"the shortest text that meets the constraint has {shortest} tokens, but max_tokens is "
                f"{max_tokens}; raise it, or let texts be cut with truncation='truncate'"
            )


def regex(pattern: str, lm: LanguageModel, *, truncation: str = "truncate", use: str = "both") -> Constraint:
    """Texts that match a regular expression in full (Python's syntax; see ``regex.py``).

    Args:
      pattern: the regular expression, of the text after the prompt.
      lm: the model whose tokens it is compiled for.
      truncation, use: see :class:`Constraint`.

    Raises:
      RegexError: the pattern is not a regular expression, or has parts that no automaton can match.
      VocabularyError: the model's tokens cannot spell any match.
    """
    automaton = compile_regex(pattern, lm.tokenizer.token_bytes, lm.eos)
    return Constraint(automaton, truncation, use)
