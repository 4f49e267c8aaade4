"""update and regenerate: weights against densities, and exact invariance, under branch flips, scans and vmaps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax

from borelax import ppl, semantics

KEY = jax.random.key(0)


def bit(name, p=0.5, **options):
    return ppl.sample(name, dist.Bernoulli(p), **options)


def assert_close(x, y, **tolerance):
    np.testing.assert_allclose(x, y, **({"rtol": 1e-5, "atol": 1e-5} | tolerance))


# ------------------------------------------------------------------------- programs


def straight(scale=0.5):
    x = ppl.sample("x", dist.Normal(0.0, scale))
    with ppl.scope("block"):
        y = ppl.sample("y", dist.Normal(x, 1.0).expand([2]))
    ppl.observe("z", dist.Normal(y.sum(), scale), 0.5)
    return ppl.deterministic("twice", 2 * x)


def in_a_scan(scale=0.5):
    def step(x, t):
        x = ppl.sample("x", dist.Normal(x, scale))
        ppl.factor(-(x**2))
        return x, jax.vmap(lambda m: ppl.sample("y", dist.Normal(m, 1.0)))(jnp.stack([x, 2 * x]))

    return lax.scan(step, 0.0, jnp.arange(3))[1]


def a_branch(p=0.25):
    """A flag that says which of two sites there is, and a third that depends on it."""
    flag = bit("flag", p)
    z = lax.cond(flag == 1, lambda: bit("a", 0.75) + 1, lambda: 3 * bit("b", 0.125))
    ppl.factor(0.5 * z)
    return flag, z, bit("c", 0.25 + 0.125 * z)


def branches_in_a_scan():
    def step(s, _):
        flag = bit("flag", 0.25 + 0.5 * s)
        s = lax.cond(flag == 1, lambda: bit("a", 0.75), lambda: 0)
        ppl.factor(0.5 * s - 0.25 * flag)
        return s, s

    return lax.scan(step, 0, None, length=2)[1]


def branches_under_vmap():
    flags = jax.vmap(lambda p: bit("flag", p))(jnp.array([0.25, 0.5]))
    values = jax.vmap(lambda f: lax.cond(f == 1, lambda: bit("a", 0.75), lambda: 0))(flags)
    ppl.factor(0.5 * values.sum() - 0.25 * flags.sum())
    return flags, values


def with_proposals():
    flag = bit("flag", 0.25, proposal=dist.Bernoulli(0.5))
    z = lax.cond(flag == 1, lambda: bit("a", 0.75, proposal=dist.Bernoulli(0.25)), lambda: 0)
    ppl.factor(0.5 * z)
    return flag, z


def a_loop():
    flip = lambda c: (c[0] + 1, bit("heads", 0.25) == 1)  # noqa: E731
    n, _ = ppl.loop(lambda c: c[1], flip, (0, jnp.array(True)), max_steps=3)
    ppl.factor(0.5 * n)
    return n


FINITE = {
    "a branch": a_branch,
    "branches in a scan": branches_in_a_scan,
    "branches under vmap": branches_under_vmap,
    "proposals": with_proposals,
    "a loop": a_loop,
}
SELECTIONS = {
    "a branch": [
        ppl.select("flag"),
        ppl.select("a"),
        ppl.select("a", "b"),
        ~ppl.select("flag"),
        ~ppl.select(),
    ],
    "branches in a scan": [ppl.select("flag"), ppl.select("a"), ~ppl.select()],
    "branches under vmap": [ppl.select("flag"), ppl.select("a"), ~ppl.select()],
    "proposals": [ppl.select("flag"), ppl.select("a"), ~ppl.select()],
    "a loop": [ppl.select("heads")],
}


# ------------------------------------------------------------------------- update


@pytest.mark.parametrize("program", [straight, in_a_scan], ids=lambda p: p.__name__)
def test_the_weight_is_the_difference_of_the_densities(program):
    old = ppl.simulate(program)(KEY, jnp.array(0.5))
    choices = ppl.simulate(program)(jax.random.key(1), jnp.array(0.5)).choices
    density = ppl.log_density(program)
    for new in ({}, {"x": choices["x"]}, choices):
        for scale in (jnp.array(0.5), jnp.array(2.0)):
            edit = jax.jit(ppl.update(program, new))(old, scale)
            expected = density({**old.choices, **new}, scale)
            assert_close(edit.trace.log_density, expected)
            assert_close(edit.log_weight, expected - old.log_density)
            same = ppl.simulate(ppl.do(program, edit.trace.choices))(KEY, scale)
            jax.tree.map(assert_close, same.value, edit.trace.value)
            assert edit.discarded.keys() == new.keys()
            jax.tree.map(np.testing.assert_array_equal, edit.discarded, {k: old.choices[k] for k in new})


def test_an_update_in_the_same_place_has_no_weight():
    old = ppl.simulate(straight)(KEY)
    edit = ppl.update(straight)(old)
    assert edit.discarded == {} and float(edit.log_weight) == 0.0
    jax.tree.map(np.testing.assert_array_equal, edit.trace, old)


def test_some_elements():
    old = ppl.simulate(in_a_scan)(KEY)
    edit = ppl.update(in_a_scan, {"x": ppl.partly([9.0, 0.25, 9.0], [False, True, False])})(old)
    np.testing.assert_array_equal(edit.trace.choices["x"], old.choices["x"].at[1].set(0.25))
    assert_close(edit.log_weight, ppl.log_density(in_a_scan)(edit.trace.choices) - old.log_density)
    back = ppl.update(in_a_scan, edit.discarded)(edit.trace)
    np.testing.assert_array_equal(back.trace.choices["x"], old.choices["x"])


def the_trace(program, choices):
    """The trace of a finite program at given choices."""
    return ppl.simulate(ppl.do(program, choices))(KEY)


def test_a_branch_that_flips():
    """The weight counts the sites of both branches; the site that is gone is discarded, and comes back."""
    present = lambda x: ppl.Masked(jnp.array(x), jnp.array(True))  # noqa: E731
    absent = ppl.Masked(jnp.array(0), jnp.array(False))
    before = {"flag": jnp.array(1), "a": present(1), "b": absent, "c": jnp.array(1)}
    density = ppl.log_density(a_branch)
    by_hand = {1: np.log(0.25 * 0.75 * 0.5) + 1.0, 0: np.log(0.75 * 0.125 * 0.625) + 1.5}
    assert_close(density(before), by_hand[1])

    for seed in range(8):
        run = ppl.seed(ppl.trace(ppl.condition(a_branch, before)))(KEY)
        old = ppl.Trace(run.value, before, run.log_density, run.log_weight, {})
        edit = ppl.seed(ppl.update(a_branch, {"flag": 0, "b": present(1)}))(KEY, old)
        after = {"flag": jnp.array(0), "a": absent, "b": present(1), "c": jnp.array(1)}
        assert_close(edit.log_weight, by_hand[0] - by_hand[1])
        assert_close(density(after), by_hand[0])
        assert edit.discarded["a"].present and edit.discarded["a"].value == 1 and edit.discarded["flag"] == 1

        drawn = ppl.seed(ppl.update(a_branch, {"flag": 0}))(jax.random.key(seed), old)
        b = int(drawn.trace.choices["b"].value)
        probability = 0.125 if b else 0.875
        expected = density(drawn.trace.choices) - old.log_density - np.log(probability)
        assert_close(drawn.log_weight, expected)

        back = ppl.seed(ppl.update(a_branch, edit.discarded))(KEY, edit.trace)
        assert_close(back.log_weight, -edit.log_weight)
        jax.tree.map(
            lambda x, y: np.testing.assert_array_equal(x, y), _shown(back.trace.choices), _shown(before)
        )


def _shown(choices):
    """Choices without what is not present."""
    shown = lambda x: jnp.where(x.present, x.value, 0) if isinstance(x, ppl.Masked) else x  # noqa: E731
    return jax.tree.map(shown, choices, is_leaf=lambda x: isinstance(x, ppl.Masked))


def test_a_value_for_a_branch_that_is_not_taken():
    old = ppl.simulate(ppl.do(a_branch, {"flag": 1}))(KEY)
    old = ppl.seed(ppl.update(a_branch, {"flag": 1}))(
        KEY, ppl.Trace(old.value, {**old.choices, "flag": jnp.array(1)}, old.log_density, old.log_weight, {})
    ).trace
    edit = ppl.seed(ppl.update(a_branch, {"b": 1}))(KEY, old)
    assert edit.log_weight == -jnp.inf and edit.trace.log_density == -jnp.inf


def test_what_no_longer_fits():
    walk = lambda ys: lax.scan(lambda x, y: (ppl.sample("x", dist.Normal(x, 1.0)),) * 2, 0.0, ys)[1]  # noqa: E731
    old = ppl.simulate(walk)(KEY, jnp.zeros(3))
    with pytest.raises(ppl.ChoiceError, match=r"'x' .* has shape \(4,\).*shape \(3,\)"):
        ppl.update(walk)(old, jnp.zeros(4))
    longer = jnp.arange(4.0)
    edit = ppl.update(walk, {"x": longer})(old, jnp.zeros(4))
    assert_close(edit.log_weight, ppl.log_density(walk)({"x": longer}, jnp.zeros(4)) - old.log_density)
    np.testing.assert_array_equal(edit.discarded["x"], old.choices["x"])


def test_sites_that_come_and_go_with_static_arguments():
    def program(more):
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        return ppl.sample("more", dist.Normal(x, 1.0)) if more else x

    old = ppl.simulate(program)(KEY, False)
    edit = ppl.seed(ppl.update(program))(KEY, old, True)
    assert_close(edit.log_weight, 0.0)
    assert edit.trace.value == edit.trace.choices["more"]
    back = ppl.update(program)(edit.trace, False)
    assert back.discarded == {"more": edit.trace.choices["more"]}
    assert_close(back.log_weight, old.log_density - edit.trace.log_density)


def test_unknown_addresses():
    old = ppl.simulate(straight)(KEY)
    with pytest.raises(ppl.AddressError, match="no site 'w'"):
        ppl.update(straight, {"w": 0.0})(old)
    with pytest.raises(ppl.AddressError, match="names 'w'"):
        ppl.regenerate(straight, ppl.select("w"))(old)


# ------------------------------------------------------------------------- regenerate


def all_traces(program):
    """Every trace of a finite program, with its weight."""
    return list(semantics.meaning(ppl.trace(program))())


def spelled(trace) -> str:
    return repr(jax.tree.map(lambda x: np.asarray(x).tolist(), _shown(trace.choices)))


@pytest.mark.parametrize("name", family(FINITE))
def test_regenerate_leaves_the_program_invariant(name):
    """Detailed balance of accept-reject, exactly, between all pairs of traces."""
    program = FINITE[name]
    with jax.enable_x64(True):
        traces = [trace for trace, _ in all_traces(program)]
        mass = {spelled(trace): np.exp(float(ppl.log_density(program)(trace.choices))) for trace in traces}
        assert len(mass) == len(traces)
        for selection in SELECTIONS[name]:
            flow: dict = {}
            for trace in traces:
                for edit, probability in semantics.meaning(ppl.regenerate(program, selection))(trace):
                    accepted = probability * min(1.0, np.exp(float(edit.log_weight)))
                    pair = spelled(trace), spelled(edit.trace)
                    flow[pair] = flow.get(pair, 0.0) + mass[pair[0]] * accepted
            assert len(flow) > len(traces)
            for (x, y), forth in flow.items():
                assert flow.get((y, x), 0.0) == pytest.approx(forth, rel=1e-10), (selection, x, y)


@pytest.mark.parametrize("program", [straight, in_a_scan], ids=lambda p: p.__name__)
def test_the_weight_is_that_of_the_metropolis_hastings_identity(program):
    """What is drawn from its own distribution cancels; what is left is the density of the rest."""
    old = ppl.simulate(program)(KEY)
    edit = jax.jit(ppl.seed(ppl.regenerate(program, ppl.select("x"))))(jax.random.key(1), old)
    rest = ~ppl.select("x")
    assert jax.tree.all(
        jax.tree.map(lambda x, y: bool(jnp.all(x == y)), rest.of(edit.trace.choices), rest.of(old.choices))
    )
    expected = density_of_the_rest(program, edit.trace.choices) - density_of_the_rest(program, old.choices)
    assert_close(edit.log_weight, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(edit.discarded["x"], old.choices["x"])


def density_of_the_rest(program, choices):
    """The density without the terms of x: with x set, not observed."""
    rest = {name: choice for name, choice in choices.items() if name != "x"}
    return ppl.log_density(ppl.do(program, {"x": choices["x"]}))(rest)


def test_values_that_come_from_elsewhere():
    """What the program draws is in the weight, on both ways; what was given is not, nor what its way back proposes."""
    old = ppl.Trace(
        None, {"flag": jnp.array(1), "a": there(1), "b": nowhere(), "c": jnp.array(0)}, None, None, None
    )
    move = ppl.regenerate(a_branch, ppl.select("c"), {"flag": 0, "b": there(1)})
    edit = ppl.seed(move)(KEY, old)
    # a is drawn by the program on the way back, so its density cancels; so does that of c, either way.
    assert_close(edit.log_weight, np.log(0.75 * 0.125) + 1.5 - (np.log(0.25) + 1.0))
    assert edit.discarded["a"].present and not edit.discarded["b"].present and edit.discarded["flag"] == 1

    without_b = ppl.regenerate(a_branch, ppl.select(), {"flag": 0, "b": nowhere()})
    assert ppl.seed(without_b)(KEY, old).log_weight == -jnp.inf


def there(x) -> ppl.Masked:
    return ppl.Masked(jnp.array(x), jnp.array(True))


def nowhere() -> ppl.Masked:
    return ppl.Masked(jnp.array(0), jnp.array(False))


def test_a_value_that_the_proposal_cannot_draw_is_never_left():
    program = lambda: ppl.sample("x", dist.Uniform(0.0, 1.0), proposal=dist.Uniform(0.0, 0.5))  # noqa: E731
    old = ppl.update(program, {"x": 0.75})(ppl.simulate(program)(KEY)).trace
    edit = ppl.seed(ppl.regenerate(program, ppl.select("x")))(KEY, old)
    assert edit.trace.value < 0.5 and edit.log_weight == -jnp.inf


def test_nothing_selected_changes_nothing():
    old = ppl.simulate(straight)(KEY)
    edit = ppl.regenerate(straight, ppl.select())(old)
    assert float(edit.log_weight) == 0.0 and edit.discarded == {}
    jax.tree.map(np.testing.assert_array_equal, edit.trace.choices, old.choices)


def test_batches_of_traces():
    """vmap over traces gives each its own weight."""
    keys = jax.random.split(KEY, 12)
    traces = jax.vmap(ppl.simulate(a_branch))(keys)
    move = ppl.seed(ppl.regenerate(a_branch, ppl.select("flag")))
    keys = jax.random.split(jax.random.key(1), 12)
    edits = jax.vmap(move)(keys, traces)
    for i, key in enumerate(keys):
        one = move(key, jax.tree.map(lambda x: x[i], traces))
        assert_close(edits.log_weight[i], one.log_weight)
    assert len(set(np.asarray(edits.log_weight).round(4).tolist())) > 1
