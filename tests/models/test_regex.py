"""Byte automata of regular expressions, against ``re.fullmatch``."""

from __future__ import annotations

import itertools
import re
import warnings
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from borelax.models.regex import DEAD, ByteAutomaton, RegexError, byte_automaton
from borelax.ppl.errors import BorelaxError

ALPHABET = "ab1 \néßſ€😀"  # one to four bytes; ß and ſ have unusual cases
exact = settings(deadline=None, derandomize=True, max_examples=150)


def patterns(atoms, unbounded: bool = True):
    """Random regular expressions over ``atoms``."""
    suffixes = ["?", "??", "{2}", "{0,2}", "{1,2}?", "{,1}"] + ["*", "+", "*?", "+?", "{2,}"] * unbounded
    several = {"min_size": 1, "max_size": 3}
    return st.recursive(
        st.sampled_from(atoms),
        lambda inner: st.one_of(
            st.lists(inner, **several).map("".join),
            st.lists(inner, **several).map(lambda options: f"({'|'.join(options)})"),
            st.tuples(inner, st.sampled_from(suffixes)).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
            st.tuples(st.sampled_from("isa"), inner).map(lambda pair: f"(?{pair[0]}:{pair[1]})"),
        ),
        max_leaves=6,
    )


LETTERS = ["a", "b", "1", "é", "ß", "€", "😀", ""]
CLASSES = [
    ".",
    "[ab]",
    "[^a]",
    "[^é\n]",
    "[a-é]",
    "[€-😀]",
    r"\d",
    r"\D",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    r"[^\W\d]",
]
FLAGS = st.sampled_from(["", "(?i)", "(?s)", "(?a)", "(?ais)"])


def strings(length: int):
    return ["".join(word) for n in range(length + 1) for word in itertools.product(ALPHABET, repeat=n)]


@exact
@example("", "(a?){2}")
@example("", "(?:a?b|){2,3}€")
@example("", "(?:(?:a|b?){2,}é*){1,2}")
@example("", r"(a|[^\s\S])(b[^\s\S])*")
@given(FLAGS, patterns(LETTERS + CLASSES))
def test_language_is_that_of_fullmatch_on_all_short_strings(flags, pattern):
    pattern = flags + pattern
    automaton, oracle = byte_automaton(pattern), re.compile(pattern)
    for string in strings(3):
        assert automaton.fullmatch(string.encode()) == bool(oracle.fullmatch(string)), (pattern, string)


@exact
@given(FLAGS, patterns(LETTERS + CLASSES), st.randoms(use_true_random=False))
def test_every_accepted_byte_string_is_a_match(flags, pattern, random):
    pattern = flags + pattern
    automaton = byte_automaton(pattern)
    for _ in range(20):
        data = random_match(automaton, random)
        assert data is None or re.fullmatch(pattern, data.decode()), (pattern, data)


def random_match(automaton: ByteAutomaton, random, longest: int = 60) -> bytes | None:
    state, data = 0, b""
    while len(data) < longest:
        following = automaton.transitions[state, automaton.byte_class]
        ways = np.flatnonzero(following != DEAD)
        if automaton.accepting[state] and (not len(ways) or random.random() < 0.3):
            return data
        byte = random.choice(ways.tolist())
        state, data = following[byte], data + bytes([byte])
    return None


@exact
@given(patterns(LETTERS, unbounded=False))
def test_a_prefix_is_viable_iff_it_can_be_completed(pattern):
    if re._parser.parse(pattern).getwidth()[1] > 4:
        return
    oracle = re.compile(pattern)
    matches = [string.encode() for string in letter_strings(4) if oracle.fullmatch(string)]
    viable = {match[:n] for match in matches for n in range(len(match) + 1)}
    automaton = byte_automaton(pattern)
    alphabet = sorted(set("".join(LETTERS).encode()))
    for prefix in viable:
        assert automaton.run(prefix) != DEAD
        for byte in alphabet:
            data = prefix + bytes([byte])
            assert (automaton.run(data) != DEAD) == (data in viable), (pattern, data)


@cache
def letter_strings(length: int) -> list[str]:
    letters = [letter for letter in LETTERS if letter]
    return ["".join(word) for n in range(length + 1) for word in itertools.product(letters, repeat=n)]


@pytest.mark.parametrize(
    "pattern",
    [
        r".",
        r"\w",
        r"(?a)\W",
        r"\s",
        r"[^\d\s]",
        r"(?i)[k-sß]",
        r"(?i)[^kß]",
        r"(?i)\u03c3",
        r"[\u0700-\U00010400]",
    ],
)
def test_a_class_holds_exactly_its_characters(pattern):
    oracle = re.compile(pattern)
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    expected = np.array([oracle.fullmatch(character) is not None for character in characters])
    automaton = byte_automaton(pattern)
    assert (accepts_each(automaton, characters) == expected).all()
    assert count_accepted(automaton, longest=4) == expected.sum()  # so it accepts nothing else


def accepts_each(automaton: ByteAutomaton, characters: list[str]) -> np.ndarray:
    """Whether each one-character string is accepted, all characters at once."""
    encoded = np.frombuffer("".join(characters).encode("utf-32-le"), "<u4")
    padded = np.array([character.encode() for character in characters])  # padded with zeros
    columns = padded.view(np.uint8).reshape(len(characters), -1)
    length = 1 + (encoded >= 0x80) + (encoded >= 0x800) + (encoded >= 0x10000)
    state = np.zeros(len(characters), np.int32)
    for depth in range(columns.shape[1]):
        following = automaton.transitions[state, automaton.byte_class[columns[:, depth]]]
        state = np.where((depth < length) & (state != DEAD), following, state)
    return (state != DEAD) & automaton.accepting[state]


def count_accepted(automaton: ByteAutomaton, longest: int) -> int:
    """How many byte strings of at most ``longest`` bytes are accepted."""
    following = automaton.transitions[:, automaton.byte_class]
    ways, total = (np.arange(len(following)) == 0).astype(np.int64), 0
    for _ in range(longest + 1):
        total += ways[automaton.accepting].sum()
        source, byte = np.nonzero(following != DEAD)
        ways = np.bincount(following[source, byte], weights=ways[source], minlength=len(ways)).astype(
            np.int64
        )
    return total


@exact
@given(FLAGS, patterns(LETTERS + CLASSES))
def test_states_are_reachable_live_and_inequivalent(flags, pattern):
    assert_minimal(byte_automaton(flags + pattern))


def assert_minimal(automaton: ByteAutomaton):
    transitions, accepting = automaton.transitions, automaton.accepting
    reachable, live = np.arange(len(accepting)) == 0, accepting.copy()
    block = accepting.astype(int)
    for _ in accepting:  # Moore's algorithm: as many rounds as there are states are always enough
        reachable[transitions[reachable][transitions[reachable] != DEAD]] = True
        live |= ((transitions != DEAD) & live[transitions]).any(1)
        signature = np.where(transitions == DEAD, -1, block[transitions])
        block = np.unique(np.column_stack([block, signature]), axis=0, return_inverse=True)[1]
    assert reachable.all() and live.all()
    assert len(np.unique(block)) == len(block)
    assert len(np.unique(transitions, axis=1).T) == transitions.shape[1]


@pytest.mark.parametrize(
    ("pattern", "states"),
    [
        ("", 1),
        ("[0-9]{4}-[0-9]{2}-[0-9]{2}", 11),
        ("(a|b)*abb", 4),
        ("(aa|aaaa)*", 2),
        ("(?:a{3})*|(?:a{2})*", 6),  # lengths modulo 6
        ("(a|b)*a(a|b){3}", 16),
        ("a{0,500}", 501),
        ("(a{0,500}b)*", 501),
        ("(?s).*", 8),  # the tree of UTF-8 itself: E0, ED, F0 and F4 are followed by fewer bytes than others
        ("(?s).{500}", 500 * 8 + 1),
    ],
)
def test_known_sizes(pattern, states):
    automaton = byte_automaton(pattern)
    assert len(automaton.accepting) == states


@pytest.mark.parametrize(
    "pattern", ["^ab$", r"\Aab\Z", "(^a|b)(c|d$)", "(?m)^a$", "(^)a(?:$)", "^^a$$", "(^a)?b", "^"]
)
def test_anchors_at_the_ends_say_nothing(pattern):
    plain = byte_automaton(re.sub(r"\^|\$|\\[AZ]", "", pattern))
    anchored = byte_automaton(pattern)
    assert (anchored.transitions == plain.transitions).all()
    assert (anchored.accepting == plain.accepting).all()
    for string in ["".join(word) for n in range(4) for word in itertools.product("abcd\n", repeat=n)]:
        assert anchored.fullmatch(string.encode()) == bool(re.fullmatch(pattern, string))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(?=b)", r"look-around in the regular expression 'a\(\?=b\)' \(at position 1\).*factor"),
        ("[(?=]b(?!a)", r"look-around .* \(at position 6\)"),
        ("(?<=a)b", r"look-around .* \(at position 0\)"),
        ("a(?<!b)", r"look-around .* \(at position 1\)"),
        ("a(?!)", r"look-around .* \(at position 1\)"),
        (r"(a)\\\1", r"a back-reference .* \(at position 5\).*grammar"),
        ("(?P<x>a)(?P=x)", r"a back-reference .* \(at position 8\)"),
        ("(a)?(?(1)b|c)", r"a conditional .* \(at position 4\)"),
        (r"\[\b", r"the word boundary \\b .* \(at position 2\)"),
        (r"a\Bb", r"the word boundary \\B .* \(at position 1\)"),
        ("(?>a*)a", r"an atomic group .* \(at position 0\)"),
        (r"\++a{2}+", r"a possessive repeat .* \(at position 4\)"),
        ("a^b", r"the anchor \^ .* \(at position 1\).*start"),
        ("a$b$", r"the anchor \$ .* \(at one of the positions 1, 3\).*end"),
        ("(^a)*", r"the anchor \^ .* \(at position 1\)"),
        (r"a\Ab", r"the anchor \\A .* \(at position 1\)"),
        (r"(a\Z)+", r"the anchor \\Z .* \(at position 2\)"),
        ("(a", r"malformed: .*unterminated subpattern at position 0"),
        ("a{3,2}", r"malformed: .* at position 2"),
        ("a{99999999999999}", r"malformed: .*too large"),
        (r"[^\s\S]", r"matches no string"),
        ("a[^\\d\\D]|\ud800", r"matches no string"),
        (b"a", r"must be a str, not bytes"),
    ],
)
def test_refusals_name_the_construct_and_its_place(pattern, message):
    with pytest.raises(RegexError, match=message) as caught:
        byte_automaton(pattern)
    assert isinstance(caught.value, BorelaxError) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a{3}(b{30}){500}", r"more than 1000 .* the repeat \{500\} \(at position 11\)"),
        ("a.*a.{20,}", r"the repeat \{20,\} \(at position 5\)"),
        (r"\w{1,40}", r"the repeat \{1,40\} \(at position 2\).*\(\?a\)"),
        ("(?x) a{2000} # [", r"the repeat \{2000\} \(at position 6\)"),
        (r"(ab|cd|a)*a" + "[a-z]" * 12, r"more than 1000 automaton states: simplify"),
    ],
)
def test_too_many_states_blames_a_repeat(pattern, message):
    with pytest.raises(RegexError, match=message):
        byte_automaton(pattern, max_states=1000)


def test_flags_may_be_arguments():
    automaton = byte_automaton("k.", flags=re.IGNORECASE | re.DOTALL)
    assert automaton.fullmatch("\u212a\n".encode())  # the Kelvin sign
    assert not byte_automaton("k.").fullmatch(b"K\n")


def test_surrogates_are_left_out():
    automaton = byte_automaton("[\ud7ff-\ue000]|\udc00")
    assert automaton.fullmatch("\ud7ff".encode()) and automaton.fullmatch("\ue000".encode())
    assert automaton.run(b"\xed\xa0") == DEAD


def test_no_warnings_on_ordinary_patterns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        byte_automaton(r"(?P<year>\d{4})-[^\]]+")
