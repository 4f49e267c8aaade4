"""Token-level automata: a constraint's state advances on the device, inside the loop that samples tokens.

A byte string acts on the states of a byte automaton as a function, so a token is such a function, and tokens
that act alike are one column of a small table. Of 50,000 tokens a hundred or so are different:

    next state = transitions[state, column[token]]

States from which the vocabulary cannot spell the rest of any match are removed, so a generator that only
follows allowed tokens never walks into a dead end. And every token's column says how many more tokens a match
takes at least, so a generator with ``remaining`` tokens to go can keep to those that still let it finish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ..ppl.errors import BorelaxError
from .regex import DEAD, ByteAutomaton, byte_automaton, distinct_rows

_UNREACHED = np.iinfo(np.int32).max


class VocabularyError(BorelaxError, ValueError):
    """A vocabulary that is malformed, or that cannot spell any match."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class TokenAutomaton:
    """A constraint on token sequences, as arrays; a pytree, to be passed to jitted functions as an argument.

    A state is an int32 scalar: it starts as ``start``, and is -1 once no match can follow. The methods take
    one state; ``jax.vmap`` them over particles. The end-of-sequence token is allowed exactly after a match,
    and leaves the state where it is. Control tokens (those without bytes) are never allowed.

    Attributes:
      transitions: int32 [S, U], the next state, or -1 where no match follows.
      steps_after: int32 [S, U], the least number of tokens from there to a match; huge where it is -1.
      column: int32 [V], the column of the two tables that each token uses.
      steps_to_accept: int32 [S], the least number of tokens to a match; 0 in accepting states.
      final: bool [S], whether the state is accepting and end-of-sequence is all that may follow.
    """

    transitions: Int[Array, "S U"]
    steps_after: Int[Array, "S U"]
    column: Int[Array, " V"]
    steps_to_accept: Int[Array, " S"]
    final: Bool[Array, " S"]

    @property
    def start(self) -> Int[Array, ""]:
        """The state before the first token."""
        return jnp.int32(0)

    def advance(self, state: Int[Array, ""], token: Int[Array, ""]) -> Int[Array, ""]:
        """The state after one more token; -1 if that token was not allowed."""
        return jnp.where(state == DEAD, DEAD, self.transitions[state, self.column[token]])

    def allowed(
        self, state: Int[Array, ""], remaining: Int[Array, ""] | int | None = None
    ) -> Bool[Array, " V"]:
        """Which tokens may come next, in state -1 none.

        Args:
          state: what ``start`` or ``advance`` gave.
          remaining: how many tokens can still come after this one. If given, a token is allowed only if so
            many suffice to complete a match after it, not counting the end-of-sequence token.
        """
        return self.allowed_columns(state, remaining)[self.column]

    def allowed_columns(
        self, state: Int[Array, ""], remaining: Int[Array, ""] | int | None = None
    ) -> Bool[Array, " U"]:
        """Which columns may come next: ``allowed``, before it is spread over the vocabulary."""
        # One comparison with a table: XLA fuses this into the loop over the vocabulary, where anything more
        # would be done V times instead of U times.
        enough = _UNREACHED - 1 if remaining is None else remaining
        return (state != DEAD) & (self.steps_after[state] <= enough)

    def spells(self, token: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether the token can ever be allowed: a control token, which spells nothing, cannot."""
        return jnp.any(self.transitions[:, self.column[token]] != DEAD)

    def accepts(self, state: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether the tokens so far are a match."""
        return (state != DEAD) & (self.steps_to_accept[state] == 0)

    def finished(self, state: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether the tokens so far are a match, and end-of-sequence is all that may follow."""
        return (state != DEAD) & self.final[state]


def compile_regex(
    pattern: str, token_bytes: Sequence[bytes | None], eos: int, *, flags: int = 0, max_states: int = 20_000
) -> TokenAutomaton:
    """The automaton of the token sequences that spell a full match of a regular expression.

    Args:
      pattern, flags: as for ``re.fullmatch``, with the exceptions listed at ``regex.byte_automaton``.
      token_bytes: the bytes of each token of the vocabulary; None for control tokens.
      eos: the number of the end-of-sequence token.
      max_states: the most states that the automaton may have.

    Raises:
      RegexError: see ``byte_automaton``.
      VocabularyError: the vocabulary cannot spell any match, has no token ``eos``, or has tokens that are
        neither bytes nor None.

    >>> number = compile_regex("[0-9]{3}", [b"1", b"10", b"066", b"x", None], eos=4)
    >>> number.allowed(number.start).tolist()
    [True, True, True, False, False]
    >>> number.allowed(number.start, remaining=0).tolist()
    [False, False, True, False, False]
    """
    automaton = byte_automaton(pattern, flags=flags, max_states=max_states)
    try:
        return token_automaton(automaton, token_bytes, eos)
    except VocabularyError as error:
        raise VocabularyError(f"{error} (of the regular expression {pattern!r})") from None


def token_automaton(
    automaton: ByteAutomaton, token_bytes: Sequence[bytes | None], eos: int
) -> TokenAutomaton:
    """What a byte automaton becomes for a vocabulary.

    Args and Raises: as for ``compile_regex``.
    """
    actions, action_of = _actions(automaton, _spelled(token_bytes, eos))

    sources, targets = _edges(actions)
    steps = _distances(sources, targets, goal=automaton.accepting)
    if steps[0] == _UNREACHED:
        raise VocabularyError("no sequence of the vocabulary's tokens spells a match")
    distance_from_start = _distances(targets, sources, goal=np.arange(len(steps)) == 0)
    kept = (steps != _UNREACHED) & (distance_from_start != _UNREACHED)
    number = np.append(np.where(kept, np.cumsum(kept) - 1, DEAD), DEAD)  # last: of state -1
    actions, accepting, steps = number[actions[:, kept]], automaton.accepting[kept], steps[kept]

    stop = np.where(accepting, np.arange(len(accepting)), DEAD)
    action_of[eos] = len(actions)
    columns, column_of = distinct_rows(np.vstack([actions, stop]))
    return TokenAutomaton(
        transitions=jnp.asarray(columns.T, jnp.int32),
        steps_after=jnp.asarray(np.append(steps, _UNREACHED)[columns.T], jnp.int32),
        column=jnp.asarray(column_of[action_of], jnp.int32),
        steps_to_accept=jnp.asarray(steps, jnp.int32),
        final=jnp.asarray(accepting & (actions == DEAD).all(0)),
    )


def _spelled(token_bytes: Sequence[bytes | None], eos: int) -> list[bytes]:
    """The bytes of each token, empty for those that are only allowed by a rule of their own, or never."""
    if not 0 <= eos < len(token_bytes):
        raise VocabularyError(f"the end-of-sequence token {eos} is not one of {len(token_bytes)} tokens")
    spelled = [b"" if token is None else token for token in token_bytes]
    for i, token in enumerate(spelled):
        if not isinstance(token, bytes):
            kind = type(token).__name__
            raise VocabularyError(f"token {i} must be bytes, or None for a control token, not {kind}")
    spelled[eos] = b""
    return spelled


def _actions(automaton: ByteAutomaton, spelled: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """What each token does to each state.

    All tokens are read at once, one byte further in each round. Those that have acted alike so far and go on
    with the same class of bytes are one until they part, so no work is done twice.

    Args:
      spelled: the bytes of each token; an empty string is a token that leads nowhere.

    Returns:
      int32 [actions, S], the distinct actions: the state after, or -1. int [V], the action of each token.
    """
    step = np.pad(automaton.transitions, ((0, 1), (0, 0)), constant_values=DEAD)  # row -1: the dead state
    length = np.array([len(token) for token in spelled])
    offset = np.cumsum(length) - length
    classes = automaton.byte_class[np.frombuffer(b"".join(spelled), np.uint8)]
    width = automaton.transitions.shape[1]

    identity = np.arange(len(automaton.transitions), dtype=np.int32)
    actions = [np.full_like(identity, DEAD), identity]
    numbers = {action.tobytes(): i for i, action in enumerate(actions)}
    action_of = np.where(length > 0, 1, 0)
    for depth in range(length.max(initial=0)):
        reading = np.flatnonzero((length > depth) & (action_of != 0))
        ways = action_of[reading] * width + classes[offset[reading] + depth]
        ways, way_of = np.unique(ways, return_inverse=True)
        after = np.empty(len(ways), np.int64)
        for i, way in enumerate(ways.tolist()):
            action = step[actions[way // width], way % width]
            after[i] = numbers.setdefault(action.tobytes(), len(actions))
            if after[i] == len(actions):
                actions.append(action)
        action_of[reading] = after[way_of]
    used, action_of = np.unique(action_of, return_inverse=True)
    return np.stack([actions[i] for i in used]), action_of


def _edges(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct pairs (state, next state) under any of the ``actions`` [A, S], as two arrays."""
    targets = np.sort(actions, axis=0).T
    distinct = targets != DEAD
    distinct[:, 1:] &= targets[:, 1:] != targets[:, :-1]
    return np.nonzero(distinct)[0], targets[distinct]


def _distances(sources: np.ndarray, targets: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """int32 [S], the least number of edges (source, target) from each state into ``goal``, bool [S]."""
    distance = np.where(goal, 0, _UNREACHED).astype(np.int32)
    for steps in range(len(goal)):
        pending = distance[sources] == _UNREACHED
        sources, targets = sources[pending], targets[pending]
        reached = sources[distance[targets] == steps]
        if not len(reached):
            break
        distance[reached] = steps + 1
    return distance
