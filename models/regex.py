"""Regular expressions as byte-level automata: what a constraint is before it meets a vocabulary.

A pattern is read by the standard library's own parser and means what it means to ``re.fullmatch``: the
language of the automaton is ``{s.encode() : re.fullmatch(pattern, s)}``. It is built in four steps, one
section each:

1. *Terms.* Regular expressions over sets of characters, hash-consed.
2. *Reading.* The parse tree becomes a term; which characters a class contains is asked of ``re`` itself.
3. *Characters.* The term's partial derivatives are the states of an automaton, made deterministic as they
   are discovered, then minimised. A bounded repeat is a counter in a term: it is never written out.
4. *Bytes.* Each state's transitions are grouped into the UTF-8 tree, 64 characters or subtrees at a time.

A fifth section words the errors. As in ``re``, ``\\d``, ``\\w`` and ``\\s`` mean all of Unicode: start a
pattern with ``(?a)`` to keep them to ASCII, and the automaton small.

Sources: Antimirov, *Partial derivatives of regular expressions and finite automaton constructions* (1996);
Owens, Reppy and Turon, *Regular-expression derivatives re-examined* (2009); Hopcroft, *An n log n algorithm
for minimizing states in a finite automaton* (1971).
"""

from __future__ import annotations

import re
import re._compiler as re_compiler
import re._constants as op
import re._parser as re_parser
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..ppl.errors import BorelaxError

DEAD = -1  # the state from which nothing matches any more

Ranges = tuple[tuple[int, int], ...]  # a set of code points: disjoint half-open intervals in increasing order


class RegexError(BorelaxError, ValueError):
    """A pattern that is malformed, matches nothing, needs too many states, or is not a regular expression."""


@dataclass(frozen=True, eq=False)
class ByteAutomaton:
    """A minimal deterministic automaton over bytes; it starts in state 0.

    Attributes:
      transitions: int32 [states, classes], the next state, or -1 where no match goes on that way.
      byte_class: int32 [256], the column of ``transitions`` that each byte uses.
      accepting: bool [states], whether the bytes read so far are a match.

    From every state some accepting state can be reached.
    """

    transitions: np.ndarray
    byte_class: np.ndarray
    accepting: np.ndarray

    def run(self, data: bytes, state: int = 0) -> int:
        """The state after reading ``data``, or -1: then no match starts like this."""
        for byte in data:
            if state == DEAD:
                break
            state = int(self.transitions[state, self.byte_class[byte]])
        return state

    def fullmatch(self, data: bytes) -> bool:
        """Whether ``data`` is the UTF-8 form of a match."""
        state = self.run(data)
        return state != DEAD and bool(self.accepting[state])


def byte_automaton(pattern: str, *, flags: int = 0, max_states: int = 20_000) -> ByteAutomaton:
    """The minimal automaton of the strings that ``re.fullmatch(pattern, s, flags)`` matches, in UTF-8.

    Groups of every kind only group, and lazy repeats mean what greedy ones do: neither changes which
    strings match. ``^``, ``$``, ``\\A`` and ``\\Z`` are accepted at the ends, where they say nothing new.
    Strings that UTF-8 cannot express (lone surrogates) are left out.

    Args:
      pattern: the regular expression, in Python's syntax.
      flags: as for ``re.compile`` (``re.IGNORECASE``, ``re.ASCII``, ...); inline flags work too.
      max_states: the most states the automaton may have at any stage of its construction.

    Raises:
      RegexError: the pattern is malformed; matches no string; needs more than ``max_states`` states; or uses
        look-around, back-references, conditionals, word boundaries, atomic groups, possessive repeats, or an
        anchor that is not at an end.

    >>> date = byte_automaton("[0-9]{4}-[0-9]{2}-[0-9]{2}")
    >>> date.fullmatch(b"1066-10-14"), date.run(b"1066-10-14!")
    (True, -1)
    """
    reader = _Reader(pattern, flags)
    if reader.start == reader.terms.nothing:
        raise RegexError(f"the regular expression {pattern!r} matches no string")
    atoms_in, atom_of = _partition(list(reader.terms.alphabet))
    try:
        transitions, accepting = _determinise(reader.terms, reader.start, atoms_in, max_states)
        transitions, accepting = _minimise(transitions, accepting)
        return _encode(transitions, accepting, atom_of, max_states)
    except _TooManyStates:
        raise _too_large(pattern, reader.repeats, max_states) from None


class _TooManyStates(Exception):
    pass


# ---- 1. Terms --------------------------------------------------------------------------------------------


class _Terms:
    """Regular expressions over sets of characters, hash-consed: equal expressions are the same integer.

    A term is ``("empty",)``, ``("characters", number in alphabet)``, ``("sequence", head, tail)``,
    ``("choice", *terms)`` or ``("repeat", body, low, high or None)``. Sequences nest to the right. Only the
    term ``nothing`` matches no string: larger terms absorb it, so no state of the automaton is dead.
    """

    def __init__(self):
        self.alphabet: dict[Ranges, int] = {}
        self._terms: list[tuple] = []
        self._nullable: list[bool] = []
        self._numbers: dict[tuple, int] = {}
        self._moves: dict[int, frozenset[tuple[int, int]]] = {}
        self.empty = self._number(("empty",), nullable=True)
        self.nothing = self._number(("choice",), nullable=False)

    def nullable(self, term: int) -> bool:
        """Whether the empty string matches."""
        return self._nullable[term]

    def characters(self, ranges: Ranges) -> int:
        """Any one of the characters."""
        if not ranges:
            return self.nothing
        return self._number(
            ("characters", self.alphabet.setdefault(ranges, len(self.alphabet))), nullable=False
        )

    def sequence(self, head: int, tail: int) -> int:
        """``head``, then ``tail``."""
        if self.nothing in (head, tail):
            return self.nothing
        if tail == self.empty:
            return head
        heads = []
        while self._terms[head][0] == "sequence":
            _, first, head = self._terms[head]
            heads.append(first)
        if head != self.empty:
            heads.append(head)
        for first in reversed(heads):
            nullable = self._nullable[first] and self._nullable[tail]
            tail = self._number(("sequence", first, tail), nullable)
        return tail

    def choice(self, options: Iterable[int]) -> int:
        """Any one of the ``options``."""
        options = sorted(set(options) - {self.nothing})
        if len(options) == 1:
            return options[0]
        return self._number(("choice", *options), any(self._nullable[option] for option in options))

    def repeat(self, body: int, low: int, high: int | None) -> int:
        """``low`` to ``high`` times ``body``; ``high=None`` is without bound."""
        if self._nullable[body]:
            low = 0
        if high == 0 or body == self.empty or (body == self.nothing and low == 0):
            return self.empty
        if body == self.nothing or (low, high) == (1, 1):
            return body
        return self._number(("repeat", body, low, high), nullable=low == 0)

    def moves(self, term: int) -> frozenset[tuple[int, int]]:
        """The partial derivatives: pairs (a set of characters, what is left to match after one of them)."""
        if term not in self._moves:
            self._moves[term] = frozenset(self._derive(term))
        return self._moves[term]

    def _derive(self, term: int) -> Iterator[tuple[int, int]]:
        while self._terms[term][0] == "sequence":
            _, head, tail = self._terms[term]
            for characters, rest in self.moves(head):
                yield characters, self.sequence(rest, tail)
            if not self._nullable[head]:
                return
            term = tail
        match self._terms[term]:
            case ("characters", characters):
                yield characters, self.empty
            case ("choice", *options):
                for option in options:
                    yield from self.moves(option)
            case ("repeat", body, low, high):
                again = self.repeat(body, max(low - 1, 0), None if high is None else high - 1)
                for characters, rest in self.moves(body):
                    yield characters, self.sequence(rest, again)

    def _number(self, term: tuple, nullable: bool) -> int:
        if term not in self._numbers:
            self._numbers[term] = len(self._terms)
            self._terms.append(term)
            self._nullable.append(nullable)
        return self._numbers[term]


# ---- 2. Reading ------------------------------------------------------------------------------------------


class _Reader:
    """Reads a pattern into ``terms``, as the term ``start``; ``repeats`` are the bounds of its repeats."""

    def __init__(self, pattern: str, flags: int):
        if not isinstance(pattern, str):
            raise RegexError(f"a regular expression must be a str, not {type(pattern).__name__}")
        self.pattern = pattern
        self.terms = _Terms()
        self.repeats: list[tuple[int, int | None]] = []
        try:
            tree = re_parser.parse(pattern, flags & ~re.DEBUG)
        except (re.error, ValueError, OverflowError) as error:
            raise RegexError(f"the regular expression {pattern!r} is malformed: {error}") from None
        self.start = self._read_all(tree, tree.state.flags, at_start=True, at_end=True)

    def _read_all(self, items: Iterable[tuple], flags: int, at_start: bool, at_end: bool) -> int:
        """Items in sequence. ``at_start``: they can only begin where the string does; ``at_end`` likewise."""
        items = list(items)
        last = max((i for i, (kind, _) in enumerate(items) if kind is not op.AT), default=0)
        parts = []
        for i, item in enumerate(items):
            parts.append(self._read(item, flags, at_start, at_end and i >= last))
            at_start = at_start and parts[-1] == self.terms.empty
        sequence = self.terms.empty
        for part in reversed(parts):
            sequence = self.terms.sequence(part, sequence)
        return sequence

    def _read(self, item: tuple, flags: int, at_start: bool, at_end: bool) -> int:
        match item:
            case (op.LITERAL | op.NOT_LITERAL | op.ANY | op.IN, _):
                return self.terms.characters(_characters(item, flags))
            case (op.BRANCH, (_, options)):
                return self.terms.choice(
                    self._read_all(option, flags, at_start, at_end) for option in options
                )
            case (op.SUBPATTERN, (_, added, removed, body)):
                if added & re_parser.TYPE_FLAGS:
                    flags &= ~re_parser.TYPE_FLAGS
                return self._read_all(body, (flags | added) & ~removed, at_start, at_end)
            case (op.MAX_REPEAT | op.MIN_REPEAT, (low, high, body)):
                high = None if high is op.MAXREPEAT else high
                self.repeats.append((low, high))
                once = high == 1
                return self.terms.repeat(
                    self._read_all(body, flags, at_start and once, at_end and once), low, high
                )
            case (op.AT, op.AT_BEGINNING | op.AT_BEGINNING_STRING) if at_start:
                return self.terms.empty
            case (op.AT, op.AT_END | op.AT_END_STRING) if at_end:
                return self.terms.empty
        raise _refusal(self.pattern, item)


def _characters(item: tuple, flags: int) -> Ranges:
    """The characters that a one-character item of a parse tree matches."""
    kind, value = item
    if kind is op.LITERAL and not flags & re.IGNORECASE:
        return _without_surrogates([(value, value + 1)])
    return _matched(kind, tuple(value) if kind is op.IN else value, flags)


@lru_cache(maxsize=1024)
def _matched(kind: int, value: object, flags: int) -> Ranges:
    """As ``_characters``, by asking ``re``: over all characters in order, each run of matches is a range.

    Classes, negation, categories and the folding of cases are therefore Python's by construction.
    """
    state = re_parser.State()
    state.flags = flags
    item = re_parser.SubPattern(state, [(kind, value)])
    runs = re_parser.SubPattern(state, [(op.MAX_REPEAT, (1, op.MAXREPEAT, item))])
    return _without_surrogates(run.span() for run in re_compiler.compile(runs).finditer(_every_character()))


@lru_cache(maxsize=1)
def _every_character() -> str:
    return np.arange(_CODE_POINTS, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _without_surrogates(ranges: Iterable[tuple[int, int]]) -> Ranges:
    below, above = _SURROGATES
    pieces = (piece for low, high in ranges for piece in ((low, min(high, below)), (max(low, above), high)))
    return tuple((low, high) for low, high in pieces if low < high)


_CODE_POINTS = 0x110000
_SURROGATES = (0xD800, 0xE000)


# ---- 3. Characters ---------------------------------------------------------------------------------------


def _partition(alphabet: list[Ranges]) -> tuple[list[list[int]], np.ndarray]:
    """The coarsest partition of the characters into atoms such that each set in ``alphabet`` is some of them.

    Returns:
      The atoms of each set; and int32 [0x110000], the atom of each code point, -1 for those in no set.
    """
    cuts = np.unique([0, _CODE_POINTS, *(cut for ranges in alphabet for pair in ranges for cut in pair)])
    member = np.zeros((len(cuts) - 1, len(alphabet)), bool)
    for column, ranges in enumerate(alphabet):
        for low, high in np.searchsorted(cuts, ranges):
            member[low:high, column] = True
    atoms, atom_of_piece = distinct_rows(member, blank=False)
    atoms_in = [np.flatnonzero(atoms[:, column]).tolist() for column in range(len(alphabet))]
    return atoms_in, np.repeat(atom_of_piece, np.diff(cuts))


def _determinise(
    terms: _Terms, start: int, atoms_in: list[list[int]], max_states: int
) -> tuple[np.ndarray, np.ndarray]:
    """The subset construction over partial derivatives, from the state ``{start}``, which gets number 0.

    Returns:
      Transitions int32 [states, atoms], -1 for the empty subset; accepting, bool [states].
    """
    width = 1 + max((atom for atoms in atoms_in for atom in atoms), default=0)
    subsets = [frozenset([start])]
    numbers = {subsets[0]: 0}
    rows = []
    for subset in subsets:  # grows while it is read
        successors = defaultdict(set)
        for characters, rest in set().union(*map(terms.moves, subset)):
            for atom in atoms_in[characters]:
                successors[atom].add(rest)
        row = np.full(width, DEAD, np.int32)
        for atom, successor in successors.items():
            successor = frozenset(successor)
            if successor not in numbers:
                numbers[successor] = len(subsets)
                subsets.append(successor)
            row[atom] = numbers[successor]
        rows.append(row)
        if len(subsets) > max_states:
            raise _TooManyStates
    return np.array(rows), np.array([any(map(terms.nullable, subset)) for subset in subsets])


def _minimise(transitions: np.ndarray, accepting: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The minimal automaton of the same language, given that every state can reach an accepting one."""
    block = np.array(_equivalence(_predecessors(transitions), accepting), np.int32)
    first = np.unique(block, return_index=True)[1]
    order = np.sort(first)  # numbering blocks by their first state keeps the start at 0
    number = np.empty_like(first)
    number[block[order]] = np.arange(len(order))
    number = np.append(number[block], DEAD).astype(np.int32)  # last: of state -1
    return number[transitions[order]], accepting[order]


def _equivalence(predecessors: list[list[tuple[int, int]]], accepting: np.ndarray) -> list[int]:
    """The block of each state, where two states share a block iff they have the same language.

    Hopcroft's algorithm. Starting with every block waiting is what lets transitions be missing.
    """
    blocks = [set(np.flatnonzero(accepting == value).tolist()) for value in np.unique(accepting)]
    block = np.unique(accepting, return_inverse=True)[1].tolist()
    waiting = set(range(len(blocks)))
    while waiting:
        into = defaultdict(set)
        for state in blocks[waiting.pop()]:
            for atom, source in predecessors[state]:
                into[atom].add(source)
        for sources in into.values():
            touched = defaultdict(set)
            for source in sources:
                touched[block[source]].add(source)
            for old, part in touched.items():
                if len(part) == len(blocks[old]):
                    continue
                new = len(blocks)
                blocks[old] -= part
                blocks.append(part)
                for state in part:
                    block[state] = new
                waiting.add(new if old in waiting or len(part) <= len(blocks[old]) else old)
    return block


def _predecessors(transitions: np.ndarray) -> list[list[tuple[int, int]]]:
    """For each state, the pairs (atom, state before it)."""
    predecessors = [[] for _ in transitions]
    sources, atoms = np.nonzero(transitions != DEAD)
    targets = transitions[sources, atoms]
    for source, atom, target in zip(sources.tolist(), atoms.tolist(), targets.tolist(), strict=True):
        predecessors[target].append((atom, source))
    return predecessors


def distinct_rows(rows: np.ndarray, blank: int | bool | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of a matrix, and the number of each row among them, int32 [rows].

    Rows are numbered as they first appear; those with ``blank`` everywhere are left out and numbered -1.
    Exact (equal hashes are compared), and much faster on wide rows than ``np.unique(rows, axis=0)``.
    """
    skipped = [] if blank is None else [np.full(rows.shape[1], blank, rows.dtype).tobytes()]
    numbers = {row: -1 for row in skipped}
    number = np.array(
        [numbers.setdefault(row.tobytes(), len(numbers) - len(skipped)) for row in rows], np.int32
    )
    values, first = np.unique(number, return_index=True)
    return rows[first[values >= 0]], number


# ---- 4. Bytes --------------------------------------------------------------------------------------------

# The first lead byte, and how many there are, of characters of 1, 2, 3 and 4 bytes; then 0x80 to 0xBF follow.
_LEADS = ((0x00, 128), (0xC0, 32), (0xE0, 16), (0xF0, 5))


def _encode(
    transitions: np.ndarray, accepting: np.ndarray, atom_of: np.ndarray, max_states: int
) -> ByteAutomaton:
    """The minimal automaton over the UTF-8 bytes of the characters, from the minimal one over their atoms.

    UTF-8 is a tree whose inner nodes branch 64 ways, once for each continuation byte. A state inside a
    character is a pair (state before the character, node of the tree), and is determined by its row of 64
    successors. Going up from the leaves, equal nodes are merged, then equal states. No other states can be
    equivalent: those between characters differ already, and those inside one read other bytes.
    """
    between = np.full((len(transitions), 256), DEAD, np.int32)
    inside = [np.empty((0, 64), np.int32)]
    size = len(transitions)
    # nodes: the node at each place in code-point order, -1 if it is empty; after[state, node]: what follows.
    nodes = np.concatenate([atom_of, np.full(5 * 64**3 - _CODE_POINTS, -1, np.int32)])
    after = _with_dead_column(transitions)
    for lead, leads in _LEADS:
        between[:, lead : lead + leads] = after[:, nodes[:leads]]
        if lead == _LEADS[-1][0]:
            break
        nodes[:leads] = -1  # these have a shorter form, the only one that UTF-8 allows
        branches, nodes = distinct_rows(nodes.reshape(-1, 64), blank=-1)
        if len(between) * len(branches) > 16 * max_states:  # too many even to try and merge them
            raise _TooManyStates
        rows, number = distinct_rows(after[:, branches].reshape(-1, 64), blank=DEAD)
        number = np.where(number == DEAD, DEAD, size + number).astype(np.int32)
        after = _with_dead_column(number.reshape(len(between), len(branches)))
        inside.append(rows)
        size += len(rows)
        if size > max_states:
            raise _TooManyStates
    table = np.full((size, 256), DEAD, np.int32)
    table[: len(between)] = between
    table[len(between) :, 0x80:0xC0] = np.concatenate(inside)
    columns, byte_class = distinct_rows(np.ascontiguousarray(table.T))
    accepting = np.pad(accepting, (0, size - len(accepting)))
    return ByteAutomaton(np.ascontiguousarray(columns.T), byte_class, accepting)


def _with_dead_column(after: np.ndarray) -> np.ndarray:
    """With one more column, so that the column -1 leads to the dead state."""
    return np.pad(after, ((0, 0), (0, 1)), constant_values=DEAD)


# ---- 5. Errors -------------------------------------------------------------------------------------------

# What has its own meaning in a pattern, as far as is needed to find the place of a construct in it.
_TOKEN = re.compile(
    r"""\[ \^? \]? (?: \\. | [^\]\\] )* \]               # a class
    | \( \? (?: <?[=!] | P= | \( | > | \#[^)]*\) )    # the start of a group that is refused, and comments
    | \\ (?: [1-9][0-9]? | . )                        # an escape
    | (?: [*+?] | \{ [0-9]* ,? [0-9]* \} ) [+?]?      # a repeat
    | .""",
    re.VERBOSE | re.DOTALL,
)

# The constructs that are refused: how the token of one looks, what it is, and what to do instead.
_LOOK = "say in the pattern itself what may stand there, or check the finished text with a factor"
_EXACT = "which strings match would depend on the order of attempts; use the plain form"
_START = "all of the text has to match, so it may only stand at the start"
_END = "all of the text has to match, so it may only stand at the end"
_REFUSED = {
    "ASSERT": (r"\(\?<?[=!]", "look-around", _LOOK),
    "ASSERT_NOT": (r"\(\?<?[=!]", "look-around", _LOOK),
    "FAILURE": (r"\(\?<?[=!]", "look-around", _LOOK),
    "GROUPREF": (r"\\[1-9].*|\(\?P=", "a back-reference", "spell out the alternatives, or use a grammar"),
    "GROUPREF_EXISTS": (r"\(\?\(", "a conditional", "spell out both cases with |"),
    "ATOMIC_GROUP": (r"\(\?>", "an atomic group", f"{_EXACT} (?:...)"),
    "POSSESSIVE_REPEAT": (r".*[*+?}]\+", "a possessive repeat", f"{_EXACT}, without the last +"),
    "AT_BOUNDARY": (r"\\b", r"the word boundary \b", _LOOK),
    "AT_NON_BOUNDARY": (r"\\B", r"the word boundary \B", _LOOK),
    "AT_BEGINNING": (r"\^", "the anchor ^", _START),
    "AT_BEGINNING_STRING": (r"\\A", r"the anchor \A", _START),
    "AT_END": (r"\$", "the anchor $", _END),
    "AT_END_STRING": (r"\\Z", r"the anchor \Z", _END),
}


def _refusal(pattern: str, item: tuple) -> RegexError:
    """The error for a construct that does not fit a finite automaton."""
    kind = item[1] if item[0] is op.AT else item[0]
    spelling, name, advice = _REFUSED.get(kind.name, ("", kind.name, "it is not supported"))
    places = [place for place, token in _tokens(pattern) if re.fullmatch(spelling, token)]
    return RegexError(f"{name} in the regular expression {pattern!r}{_at(places)} is refused: {advice}")


def _too_large(pattern: str, repeats: list[tuple[int, int | None]], max_states: int) -> RegexError:
    """The error for a pattern with too many states: almost always, a bounded repeat has to count too far."""
    message = f"the regular expression {pattern!r} needs more than {max_states} automaton states"
    advice = ["simplify it", "raise max_states"]
    bounds = max(repeats, key=_copies, default=(0, 0))
    if _copies(bounds) >= 8:
        found = [(place, token) for place, token in _tokens(pattern) if _bounds(token) == bounds]
        for place, repeat in found[:1]:
            message += f", and the repeat {repeat}{_at([place])} makes them many"
        advice[0] = "lower its bound, or use * or + there and limit the number of tokens"
    if re.search(r"\\[dDsSwW]", pattern):
        advice.insert(1, "start it with (?a) if ASCII is enough")
    return RegexError(f"{message}: {', or '.join(advice)}")


def _copies(bounds: tuple[int, int | None]) -> int:
    low, high = bounds
    return low if high is None else high


def _bounds(token: str) -> tuple[int, int | None] | None:
    """The bounds that a token ``{low,high}`` of a pattern sets, if it is one."""
    match = re.fullmatch(r"\{([0-9]*)(,?)([0-9]*)\}[?]?", token)
    if not match:
        return None
    low, comma, high = match.groups()
    return int(low or 0), int(high) if high else (None if comma else int(low or 0))


def _tokens(pattern: str) -> list[tuple[int, str]]:
    return [(match.start(), match[0]) for match in _TOKEN.finditer(pattern)]


def _at(places: list[int]) -> str:
    if len(places) < 2:
        return "".join(f" (at position {place})" for place in places)
    return f" (at one of the positions {', '.join(map(str, places))})"
