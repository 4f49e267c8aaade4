"""`borelax steer` on a tiny random model: what it reports is true, and the same for the same seed."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tokenizers

from borelax.cli.main import main

PATTERN = "( [a-c<&]{1,3})+[.]"


@pytest.fixture(scope="module")
def decode(folder):
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).decode


@pytest.fixture
def steer(folder, capsys):
    """Runs the command; returns its exit code and the object that it printed."""

    def run(*arguments, prompt="one <b>", particles=8, max_tokens=12):
        sizes = ["--particles", str(particles), "--max-tokens", str(max_tokens)]
        code = main(["steer", prompt, "--model", str(folder), *sizes, "--json", *arguments])
        printed = capsys.readouterr()
        run.err = printed.err
        assert printed.out.count("\n") == 1
        return code, json.loads(printed.out, parse_constant=_refuse)

    return run


def _refuse(constant: str):
    raise AssertionError(f"{constant} is not JSON")


def logmeanexp(log_weights) -> float:
    return float(np.logaddexp.reduce(np.array(log_weights, float)) - np.log(len(log_weights)))


# ------------------------------------------------------------------ JSON


def test_the_object(steer, decode, folder):
    code, told = steer("--regex", PATTERN, "--truncation", "reachable", "--seed", "5")
    assert code == 0 and steer.err == ""
    assert (told["prompt"], told["model"], told["regex"], told["seed"]) == (
        "one <b>",
        str(folder),
        PATTERN,
        5,
    )
    assert set(told["timings"]) == {"load_s", "compile_s", "run_s", "tokens_per_s"}
    assert all(x > 0 for x in told["timings"].values())
    assert {"borelax", "jax", "jaxlib"} <= set(told["versions"])
    assert told["died"] is None and told["nulls"] == {}
    assert len(told["particles"]) == 8
    for particle in told["particles"]:
        assert set(particle) == {"text", "tokens", "log_weight", "ending"}
        assert 1 <= len(particle["tokens"]) <= 12
        assert particle["text"] == decode(particle["tokens"])


def test_reachable_texts_match_and_the_evidence_is_the_mean_weight(steer):
    _, told = steer("--regex", PATTERN, "--truncation", "reachable")
    weights = [particle["log_weight"] for particle in told["particles"]]
    for particle in told["particles"]:
        assert re.fullmatch(PATTERN, particle["text"])
        assert particle["ending"] == "match"  # nothing may follow the stop, so no end token is drawn
        assert particle["tokens"][-1] != 0
    assert told["log_evidence"] == pytest.approx(logmeanexp(weights), abs=1e-4)
    share = np.exp(np.array(weights) - np.logaddexp.reduce(weights))
    assert told["ess"] == pytest.approx(1 / np.sum(share**2), rel=1e-4)
    assert 0 <= told["log_evidence_se"] <= 1


def test_the_same_seed_gives_the_same_output(steer):
    def result(seed):
        _, told = steer("--regex", PATTERN, "--seed", seed)
        return {name: told[name] for name in ("particles", "log_evidence", "log_evidence_se", "ess")}

    assert result("3") == result("3")
    assert result("3") != result("4")


def test_an_end_token_is_kept_and_filler_is_not(steer):
    _, told = steer("--regex", "[ab]*", "--truncation", "reachable", particles=32, max_tokens=3)
    endings = {particle["ending"] for particle in told["particles"]}
    assert endings == {"end_token", "max_tokens"}
    for particle in told["particles"]:
        tokens, ended = particle["tokens"], particle["ending"] == "end_token"
        assert tokens.count(0) == ended and (tokens[-1] == 0) == ended
        assert len(particle["text"]) == len(tokens) - ended
        assert ended or len(tokens) == 3


def test_texts_end_at_a_stop_string(steer):
    _, told = steer("--regex", "([ab]|, )*", "--stop", ", ", "--stop", "bab", particles=32)
    stopped = [particle for particle in told["particles"] if particle["ending"] == "stop"]
    assert stopped
    for particle in told["particles"]:
        marks = [
            particle["text"].find(mark) + len(mark) for mark in (", ", "bab") if mark in particle["text"]
        ]
        assert (particle["ending"] == "stop") == bool(marks)
        assert not marks or min(marks) == len(particle["text"]) == len(particle["tokens"])


def test_without_a_constraint_the_weights_are_equal(steer):
    _, told = steer()
    assert told["regex"] is None
    assert [particle["log_weight"] for particle in told["particles"]] == [0.0] * 8
    assert told["log_evidence"] == pytest.approx(0.0, abs=1e-6)
    assert told["ess"] == pytest.approx(8.0)
    assert told["resamplings"] == 0


@pytest.mark.parametrize(
    "options", [["--resampler", "killing"], ["--use", "proposal"], ["--dtype", "bfloat16"]]
)
def test_the_other_ways_to_search(steer, options):
    code, told = steer("--regex", PATTERN, "--temperature", "0.7", *options)
    assert code == 0 and told["ess"] > 0


def test_a_prompt_that_fits_only_without_padding(steer):
    code, _ = steer(prompt="a" * 70, particles=2, max_tokens=26)
    assert code == 0


# ------------------------------------------------------------------ death, and the number of one particle


def test_when_every_particle_dies_the_factor_is_named(steer):
    code, told = steer("--regex", "[0-9]{9}[.]", "--use", "factor")
    assert code == 1
    assert told["died"] == "text.constraint"
    assert told["log_evidence"] is None and told["nulls"]["log_evidence"] == "minus infinity"
    assert told["ess"] == 0
    assert {particle["log_weight"] for particle in told["particles"]} == {None}
    assert steer.err.startswith("borelax: warning: all 8 particles died at 'text.constraint'")
    assert steer.err.count("\n") == 1


def test_one_particle_has_no_standard_error(steer):
    code, told = steer("--regex", PATTERN, particles=1)
    assert code == 0
    assert told["log_evidence_se"] is None and told["nulls"] == {"log_evidence_se": "infinity"}


# ------------------------------------------------------------------ the table


def test_the_table_shows_the_weights_of_distinct_texts(folder, capsys):
    options = ["--regex", "[ab]", "--particles", "16", "--max-tokens", "2"]
    assert main(["steer", "one [b]", "--model", str(folder), *options]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    rows = re.findall(r"^ *([0-9.]+)% +\S+ +([0-9]+) +([ab])\s*$", printed.out, re.MULTILINE)
    assert sorted(text for _, _, text in rows) == ["a", "b"]
    assert sum(int(count) for _, count, _ in rows) == 16
    assert sum(float(weight) for weight, _, _ in rows) == pytest.approx(100, abs=0.11)
    assert "\none [b]" in printed.out
    assert re.search(r"log evidence -[0-9.]+ ± [0-9.]+ +ESS [0-9.]+ of 16", printed.out)
