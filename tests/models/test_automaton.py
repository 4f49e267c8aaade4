"""Token automata, against the definition: which token sequences spell a match."""

from __future__ import annotations

import itertools
import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borelax.models.automaton import TokenAutomaton, VocabularyError, compile_regex, token_automaton
from borelax.models.regex import DEAD, RegexError, byte_automaton
from borelax.ppl.errors import BorelaxError

VOCABULARY = [b"a", b"b", b"ab", b"ba", b"bab", b"\xc3", b"\xa9", b"", None, b"ab"]
EOS = 9  # its bytes do not matter
TOKENS = range(7)
LONGEST = 4


@cache
def sequences(longest: int = LONGEST) -> list[tuple[int, ...]]:
    return [word for n in range(longest + 1) for word in itertools.product(TOKENS, repeat=n)]


def matching_sequences(pattern: str) -> set[tuple[int, ...]]:
    """The token sequences of at most LONGEST tokens that spell a match."""

    @cache
    def matches(data: bytes) -> bool:
        try:
            return re.fullmatch(pattern, data.decode()) is not None
        except UnicodeDecodeError:
            return False

    return {word for word in sequences() if matches(b"".join(VOCABULARY[token] for token in word))}


def arrive(automaton: TokenAutomaton, words) -> jax.Array:
    """The state after each of the words, int32 [len(words)]."""
    states = np.zeros(len(words), np.int32)
    longest = max(map(len, words))
    tokens = np.array([[*word, *[-1] * (longest - len(word))] for word in words]).reshape(len(words), longest)
    for column in tokens.T:
        following = jax.vmap(automaton.advance)(states, np.maximum(column, 0))
        states = np.where(column < 0, states, following)
    return states


# In these, whatever can be completed after two tokens can be completed with two more.
PATTERNS = [
    "",
    "a",
    "ab|ba",
    "(a|b){2}",
    "a{3}|b",
    "é",
    "aé?b?",
    "[ab]é|b",
    "(ab)*",
    "a*b?",
    "(aa)*b",
    ".a?",
    "(bab)+",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_allowed_iff_a_completion_exists(pattern):
    matches = matching_sequences(pattern)
    viable = {word[:n] for word in matches for n in range(len(word) + 1)}
    automaton = compile_regex(pattern, VOCABULARY, EOS)
    prefixes = sequences(LONGEST - 1)
    states = arrive(automaton, prefixes)
    allowed = np.asarray(jax.vmap(automaton.allowed)(states))
    accepts = np.asarray(jax.vmap(automaton.accepts)(states))
    finished = np.asarray(jax.vmap(automaton.finished)(states))
    for i, prefix in enumerate(prefixes):
        following = {token for token in TOKENS if (*prefix, token) in viable}
        if len(prefix) < LONGEST - 1:  # a longer prefix may need more than LONGEST tokens in all
            assert (states[i] != DEAD) == (prefix in viable), prefix
            assert set(np.flatnonzero(allowed[i])) == following | ({EOS} if prefix in matches else set()), (
                prefix
            )
            assert finished[i] == (prefix in matches and not following)
        assert accepts[i] == (prefix in matches), prefix


@pytest.mark.parametrize("pattern", [*PATTERNS, "(a|é|bb){1,9}", "a(a|b)*b", "((ab)*é)+"])
def test_allowed_within_the_remaining_tokens(pattern):
    matches = matching_sequences(pattern)
    automaton = compile_regex(pattern, VOCABULARY, EOS)
    prefixes = sequences(LONGEST - 1)
    states = arrive(automaton, prefixes)
    for remaining in range(LONGEST):
        allowed = np.asarray(jax.vmap(automaton.allowed, (0, None))(states, remaining))
        reachable = {
            word[:n] for word in matches for n in range(max(0, len(word) - remaining), len(word) + 1)
        }
        for i, prefix in enumerate(prefixes):
            if len(prefix) + 1 + remaining <= LONGEST:
                following = {token for token in TOKENS if (*prefix, token) in reachable}
                ends = {EOS} if prefix in matches else set()
                assert set(np.flatnonzero(allowed[i])) == following | ends, (prefix, remaining)


def test_steps_to_accept_counts_tokens():
    automaton = compile_regex("(ab){3}|b", [b"a", b"b", b"ab", b"abab", None], eos=4)
    assert automaton.steps_to_accept[automaton.start] == 1
    after_a = automaton.advance(automaton.start, 0)
    assert automaton.steps_to_accept[after_a] == 2  # b, abab
    after_ab = automaton.advance(after_a, 1)
    assert automaton.steps_to_accept[after_ab] == 1


def test_a_dead_end_of_the_vocabulary_is_never_entered():
    automaton = compile_regex("ab|cd", [b"a", b"b", b"c", None], eos=3)
    assert automaton.allowed(automaton.start).tolist() == [True, False, False, False]
    assert automaton.advance(automaton.start, 2) == DEAD
    assert automaton.transitions.shape[0] == 3


def test_end_of_sequence():
    automaton = compile_regex("a+", [b"a", b"b", b"a"], eos=2)
    start, accepting = automaton.start, automaton.advance(automaton.start, 0)
    assert automaton.allowed(start).tolist() == [True, False, False]
    assert automaton.allowed(accepting).tolist() == [True, False, True]
    assert automaton.advance(start, 2) == DEAD
    assert automaton.advance(accepting, 2) == accepting
    assert automaton.allowed(accepting, remaining=0).tolist() == [True, False, True]


def test_nothing_follows_the_dead_state():
    automaton = compile_regex("a*", [b"a", None], eos=1)
    dead = jnp.int32(DEAD)
    assert not automaton.allowed(dead).any() and not automaton.allowed(dead, remaining=9).any()
    assert not automaton.accepts(dead) and not automaton.finished(dead)
    assert automaton.advance(dead, 0) == DEAD and automaton.advance(dead, 1) == DEAD


def test_tokens_that_act_alike_share_a_column():
    automaton = compile_regex("[a-y]+", [b"a", b"b", b"abc", b"z", b"az", None, b"y"], eos=5)
    inside, outside, end = automaton.column[jnp.array([0, 3, 5])].tolist()
    assert automaton.column.tolist() == [inside, inside, inside, outside, outside, end, inside]
    assert automaton.transitions[:, jnp.array([inside, outside, end])].tolist() == [[1, -1, -1], [1, -1, 1]]
    assert automaton.final.tolist() == [False, False]


tokens = st.lists(
    st.none() | st.binary(max_size=4) | st.text("abé€", max_size=4).map(str.encode), max_size=12
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(tokens, st.sampled_from([".*", "[^b]{2,5}", r"\w+(a|\W)", "(aa|b)*é", "(?s)(.a|€)+"]))
def test_every_state_and_column_agrees_with_the_bytes(vocabulary, pattern):
    vocabulary = [*vocabulary, None]
    source = byte_automaton(pattern)
    try:
        automaton = jax.tree.map(np.asarray, token_automaton(source, vocabulary, eos=len(vocabulary) - 1))
    except VocabularyError:
        assert shortest_match(source, vocabulary, 0) is None
        return
    bytes_state = {0: 0}  # of each token-level state, found by walking from the start
    for state in iter_growing(bytes_state):
        assert automaton.steps_to_accept[state] == shortest_match(source, vocabulary, bytes_state[state])
        for token, data in enumerate(vocabulary[:-1]):
            target = automaton.transitions[state, automaton.column[token]]
            expected = source.run(data, bytes_state[state]) if data else DEAD
            if target == DEAD:
                assert expected == DEAD or shortest_match(source, vocabulary, expected) is None
            else:
                assert bytes_state.setdefault(int(target), expected) == expected
    assert sorted(bytes_state) == list(range(len(automaton.final)))


def iter_growing(mapping):
    for i in itertools.count():
        if i == len(mapping):
            return
        yield list(mapping)[i]


def shortest_match(source, vocabulary, state: int) -> int | None:
    """The least number of tokens from a byte-level state to a match, by breadth-first search."""
    seen, frontier = {state}, [state]
    for steps in itertools.count():
        if any(source.accepting[state] for state in frontier):
            return steps
        reached = {source.run(data, state) for state in frontier for data in vocabulary if data}
        frontier = list(reached - seen - {DEAD})
        seen |= reached
        if not frontier:
            return None


def test_a_walk_along_allowed_tokens_ends_in_a_match_in_time():
    pattern = r'\{"name": "[A-Za-zé ]{1,20}", "born": [12][0-9]{3}(, "tags": \[("[a-z]+"(, "[a-z]+")*)?\])?\}'
    pieces = [
        "name",
        "born",
        "tags",
        '": ',
        '", "',
        '"',
        "{",
        "}",
        "[",
        "]",
        ", ",
        " ",
        "an",
        "na",
        "é",
        "19",
        "Zu",
    ]
    vocabulary = [bytes([byte]) for byte in range(256)] + [piece.encode() for piece in pieces] + [None]
    eos = len(vocabulary) - 1
    automaton = compile_regex(pattern, vocabulary, eos)
    budget = int(automaton.steps_to_accept[0]) + 6

    def step(automaton, carry, key):
        state, left = carry
        allowed = automaton.allowed(state, remaining=left - 1)
        token = jax.random.categorical(key, jnp.where(allowed, 0.0, -jnp.inf))
        token = jnp.where(allowed.any(), token, eos)  # after the last token nothing may be left to say
        return (automaton.advance(state, token), left - 1), token

    @jax.jit
    def walks(automaton, keys):
        def walk(key):
            start = (automaton.start, jnp.int32(budget))
            (state, _), tokens = jax.lax.scan(
                lambda carry, key: step(automaton, carry, key), start, jax.random.split(key, budget)
            )
            return automaton.accepts(state), tokens

        return jax.vmap(walk)(keys)

    accepted, words = walks(automaton, jax.random.split(jax.random.key(0), 64))
    assert accepted.all()
    texts = [b"".join(vocabulary[t] or b"" for t in word).decode() for word in words.tolist()]
    assert all(re.fullmatch(pattern, text) for text in texts)
    assert len(set(texts)) > 32


def test_is_a_pytree_that_jit_does_not_recompile_for():
    traced = []

    @jax.jit
    def masks(automaton, states, remaining):
        traced.append(1)
        return jax.vmap(automaton.allowed, (0, None))(states, remaining)

    vocabulary = [b"a", b"b", None]
    first, second = (compile_regex(pattern, vocabulary, eos=2) for pattern in ("ab", "ba"))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(first))
    states = jnp.array([0, 1, 2, -1])
    assert masks(first, states, 5).tolist()[0] == [True, False, False]
    assert masks(second, states, 5).tolist()[0] == [False, True, False]
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("pattern", "vocabulary", "eos", "message"),
    [
        ("abc", [b"a", b"b", None], 2, "no sequence of the vocabulary's tokens spells a match .*'abc'"),
        ("c", [b"a", b"c"], 1, "no sequence"),  # the bytes of end-of-sequence are not text
        ("a", [b"a", None], 2, "the end-of-sequence token 2 is not one of 2 tokens"),
        ("a", [b"a", None], -1, "the end-of-sequence token -1"),
        ("a", ["a", None], 1, "token 0 must be bytes, or None for a control token, not str"),
        ("a", [], 0, "not one of 0 tokens"),
    ],
)
def test_vocabularies_that_cannot_work(pattern, vocabulary, eos, message):
    with pytest.raises(VocabularyError, match=message) as caught:
        compile_regex(pattern, vocabulary, eos)
    assert isinstance(caught.value, BorelaxError) and isinstance(caught.value, ValueError)


def test_errors_of_the_pattern_come_through():
    with pytest.raises(RegexError, match="look-around"):
        compile_regex("a(?=b)", VOCABULARY, EOS)
    with pytest.raises(RegexError, match=r"the repeat \{30\}"):
        compile_regex("a.{30}", VOCABULARY, EOS, max_states=100)


def test_only_the_empty_string():
    automaton = compile_regex("", [b"a", None], eos=1)
    assert automaton.allowed(automaton.start).tolist() == [False, True]
    assert automaton.finished(automaton.start)
