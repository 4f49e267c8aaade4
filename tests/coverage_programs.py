"""Programs for the coverage table: each has one JAX construct around, beside or under its sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.experimental import sparse

from borelax import ppl


@dataclass(frozen=True)
class Row:
    """A construct.

    Attributes:
      name: what the table calls it.
      program: ``(bit, factor, *args) -> value``, with :func:`flip` or another of the functions below for ``bit``.
      plain: ``(bit, factor) -> value``, the same without JAX; the elements of a site y are y[0], y[1], ...
      args: arrays.
    """

    name: str
    program: Callable
    plain: Callable
    args: tuple = ()


def flip(name, p):
    return 1.0 * ppl.sample(name, dist.Bernoulli(p))


def wait(name, p):
    """A bit that is read off a continuous site."""
    return 1.0 * (ppl.sample(name, dist.Exponential(1.0 + p)) > 0.5)


def scaled(scale):
    """Bits that are 1 less often, as a parameter says."""
    return lambda name, p: 1.0 * ppl.sample(name, dist.Bernoulli(scale * p), grad="score")


def spared(name, p):
    """A bit, after one that nobody looks at."""
    ppl.sample(name + "_", dist.Bernoulli(0.5))
    return flip(name, p)


# ------------------------------------------------------------------ around one function


def around(construct: Callable) -> Callable:
    """A toss, then a function with a toss and a factor inside the construct, then a toss that depends on it."""

    def program(bit, factor, p):
        def inside(x):
            y = bit("y", 0.25 + 0.25 * x)
            factor(0.5 * y - 0.25 * x)
            return 2 * x + y

        x = bit("x", p)
        s = construct(inside)(x)
        return x, s, bit("z", 0.25 + 0.125 * s)

    return program


def around_plain(bit, factor):
    x = bit("x", 0.25)
    y = bit("y", 0.25 + 0.25 * x)
    factor(0.5 * y - 0.25 * x)
    s = 2 * x + y
    return x, s, bit("z", 0.25 + 0.125 * s)


def custom_jvp(f):
    g = jax.custom_jvp(f)
    g.defjvp(lambda primals, tangents: (g(*primals), tangents[0]))
    return g


def custom_vjp(f):
    g = jax.custom_vjp(f)
    g.defvjp(lambda x: (g(x), None), lambda _, t: (t,))
    return g


def custom_vjp_nondiff(f):
    g = jax.custom_vjp(lambda scale, x: f(scale * x), nondiff_argnums=(0,))
    g.defvjp(lambda scale, x: (g(scale, x), None), lambda scale, _, t: (t,))
    return partial(g, 1.0)


def custom_vmap(f):
    g = jax.custom_batching.custom_vmap(f)
    g.def_vmap(lambda size, batched, x: (jax.vmap(f)(x), batched[0]))
    return g


def checkpoint_policy(f):
    return jax.checkpoint(f, policy=jax.checkpoint_policies.dots_saveable, prevent_cse=False)


def jit_with_static_argument(f):
    return lambda x: jax.jit(lambda scale, x: f(scale * x), static_argnums=0)(1, x)


def jit_with_python_number(f):
    return lambda x: jax.jit(lambda x, scale, nothing: f(scale * x))(x, 1, None)


def closure_convert(f):
    def call(x):
        one = x**0
        converted, constants = jax.closure_convert(lambda x: f(one * x), x)
        return converted(x, *constants)

    return call


def named_scope(f):
    def call(x):
        with jax.named_scope("block"):
            return f(x)

    return call


def cond(f):
    return lambda x: lax.cond(x < 2, f, f, x)


def switch_of_one(f):
    return lambda x: lax.switch(0, [f], x)


def vmap_of_one(f):
    """Sites get a leading axis, so they are read off the plain program as y[0]."""
    return lambda x: jax.vmap(f)(x[None])[0]


def shard_map(f):
    mesh = jax.make_mesh((1,), ("d",))
    spec = jax.sharding.PartitionSpec()
    return jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def custom_root(f):
    def call(x):
        return lax.custom_root(lambda r: r - f(x), 0.0, lambda g, r: r - g(r), lambda g, y: y / g(1.0))

    return call


def custom_linear_solve(f):
    return lambda x: lax.custom_linear_solve(lambda r: f(x) * r, x, lambda _, b: b)


def associative_scan(f):
    return lambda x: lax.associative_scan(lambda a, b: jax.vmap(f)(a) + b, jnp.stack([x, x]))[0]


def reduce(f):
    return lambda x: lax.reduce(jnp.stack([x, x]), 0.0, lambda a, b: f(a) + b, (0,))


def linear_transpose(f):
    return lambda x: jax.linear_transpose(lambda r: f(x) * r, x)(1.0)[0]


def grad(f):
    return lambda x: jax.grad(f)(x)


def grad_in_scan(f):
    """The function does not pass its argument on to the site, but the scan would draw once for all its steps."""
    return lambda x: jax.grad(lambda r: lax.scan(lambda c, _: (c * f(0.0), None), r, None, length=2)[0])(x)


def grad_of_checkpoint(f):
    return lambda x: jax.grad(jax.checkpoint(lambda r: jnp.sin(r * f(0.0))))(x)


def jvp(f):
    return lambda x: jax.jvp(f, (x,), (x,))[0]


def vjp(f):
    return lambda x: jax.vjp(f, x)[0]


def linearize(f):
    return lambda x: jax.linearize(f, x)[0]


def jacfwd(f):
    return lambda x: jax.jacfwd(lambda r: r[0] * f(0.0))(jnp.stack([x, x]))[0]


def hessian(f):
    return lambda x: jax.hessian(lambda r: r**2 * f(0.0))(x)


AROUND = {
    "jit": jax.jit,
    "jit in jit": lambda f: jax.jit(jax.jit(f)),
    "jit, static argument": jit_with_static_argument,
    "jit, Python number and None as arguments": jit_with_python_number,
    "jit, donated argument": lambda f: jax.jit(f, donate_argnums=0),
    "checkpoint": jax.checkpoint,
    "checkpoint with a policy": checkpoint_policy,
    "custom_jvp": custom_jvp,
    "custom_vjp": custom_vjp,
    "custom_vjp, nondiff_argnums": custom_vjp_nondiff,
    "custom_vmap": custom_vmap,
    "closure_convert": closure_convert,
    "named_call": jax.named_call,
    "named_scope": named_scope,
    "cond, one site in both branches": cond,
    "switch of one branch": switch_of_one,
    "shard_map": shard_map,
    "custom_root": custom_root,
    "custom_linear_solve": custom_linear_solve,
    "associative_scan, in the combining function": associative_scan,
    "reduce, in the combining function": reduce,
    "linear_transpose": linear_transpose,
    "grad": grad,
    "grad, of a scan whose sites do not depend on the argument": grad_in_scan,
    "grad, of a checkpoint whose sites do not depend on the argument": grad_of_checkpoint,
    "jvp": jvp,
    "vjp": vjp,
    "linearize": linearize,
    "jacfwd": jacfwd,
    "hessian": hessian,
}


# ------------------------------------------------------------------ between the sites: computations without any


def between(*computations: Callable) -> Callable:
    """Each computation gives back its argument, or nearly: it sits between the sites and changes nothing."""

    def construct(f):
        def call(x):
            for compute in computations:
                x = jnp.round(compute(x))
            return f(x)

        return call

    return around(construct)


def ravelled(x):
    from jax.flatten_util import ravel_pytree

    flat, unravel = ravel_pytree({"a": x, "b": jnp.stack([x, x])})
    return unravel(flat)["b"][1]


def nnx_module(x):
    from flax import nnx

    layer = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.ones((1, 1), layer.kernel.dtype)
    return layer(x[None])[0]


def linen_module(x):
    from flax import linen

    layer = linen.Dense(1, kernel_init=linen.initializers.ones)
    return layer.apply(layer.init(jax.random.key(0), x[None]), x[None])[0]


def random_numbers(x):
    return x + 0 * jax.random.normal(jax.random.fold_in(jax.random.key(0), x.astype(int)))


def debug_print(x):
    jax.debug.callback(lambda x: None, x)
    return x


def io_callback(x):
    return jax.experimental.io_callback(np.asarray, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def pure_callback(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(np.asarray, shape, x, vmap_method="expand_dims")


def sparse_product(x):
    return (sparse.BCOO.fromdense(jnp.eye(2), nse=2) @ jnp.stack([x, x]))[0]


def power(x):
    return lax.scan(lambda c, _: (c * x, None), x, None, length=2)[0]


def psum(x):
    return jax.vmap(lambda y: lax.psum(y, "i"), axis_name="i")(jnp.stack([x, 0 * x]))[0]


BETWEEN = {
    "grad, value_and_grad, jvp, vjp, linearize, jacfwd, hessian": [
        jax.grad(lambda x: x**2 / 2),
        lambda x: jax.value_and_grad(lambda x: x**2 / 2)(x)[1],
        lambda x: jax.jvp(lambda x: x**2 / 2, (x,), (jnp.ones(()),))[1],
        lambda x: jax.vjp(lambda x: 2 * x, x)[1](x / 2)[0],
        lambda x: jax.linearize(lambda x: 2 * x, x)[1](x / 2),
        lambda x: jax.jacfwd(lambda r: r * r / 2)(x),
        lambda x: x * jax.hessian(lambda x: x**2 / 2)(x),
        lambda x: jnp.sqrt(jax.grad(power)(x) / 3),
    ],
    "while_loop, associative_scan, reduce, sort, fft, convolve": [
        lambda x: lax.while_loop(lambda c: c < x, lambda c: c + 1, 0.0),
        lambda x: lax.associative_scan(jnp.add, jnp.stack([x, x]))[0],
        lambda x: lax.reduce(jnp.stack([x, x]), 0.0, lax.max, (0,)),
        lambda x: jnp.sort(jnp.stack([x, 7.0]))[0],
        lambda x: jnp.fft.ifft(jnp.fft.fft(jnp.stack([x, x]))).real[0],
        lambda x: jnp.convolve(jnp.stack([x, x]), jnp.ones(1))[0],
        ravelled,
    ],
    "linalg, cg, sparse, custom_root, custom_linear_solve": [
        lambda x: jnp.linalg.solve(2 * jnp.eye(2), jnp.stack([2 * x, x]))[0],
        lambda x: jnp.linalg.cholesky((x + 1) ** 2 * jnp.eye(2))[0, 0] - 1,
        lambda x: jax.scipy.sparse.linalg.cg(lambda r: 2 * r, 2 * x)[0],
        sparse_product,
        lambda x: lax.custom_root(lambda r: r - x, 0.0, lambda g, r: r - g(r), lambda g, y: y / g(1.0)),
        lambda x: lax.custom_linear_solve(lambda r: 2 * r, 2 * x, lambda mv, b: b / 2),
    ],
    "pure_callback, debug.callback": [pure_callback, debug_print],
    "io_callback": [io_callback],
    "shard_map, vmap with psum, random numbers from a key": [
        shard_map(lambda x: x + 0.0),
        psum,
        random_numbers,
    ],
    "bfloat16, float16, int8, bool, complex": [
        lambda x: x.astype(jnp.bfloat16).astype(jnp.float32),
        lambda x: x.astype(jnp.float16).astype(jnp.float32),
        lambda x: x.astype(jnp.int8).astype(jnp.float32),
        lambda x: (x > 0).astype(jnp.float32) * x,
        lambda x: (x * 1j).imag,
    ],
    "Flax: an nnx and a linen module": [nnx_module, linen_module],
}


# ------------------------------------------------------------------ a chain: each step's toss depends on the last


def chain(construct: Callable) -> Callable:
    """``construct(step, x) -> [y0, y1]``."""

    def program(bit, factor, p):
        def step(c):
            y = bit("y", 0.25 + 0.5 * c)
            factor(0.5 * y - 0.25 * c)
            return y

        x = bit("x", p)
        ys = construct(step, x)
        return x, ys, bit("z", 0.25 + 0.5 * ys[1])

    return program


def chain_plain(order=(0, 1)):
    """``order``: the numbers of the steps that the library gives them."""

    def plain(bit, factor):
        x = c = bit("x", 0.25)
        ys = {}
        for i in order:
            y = bit(f"y[{i}]", 0.25 + 0.5 * c)
            factor(0.5 * y - 0.25 * c)
            ys[i] = c = y
        return x, [ys[0], ys[1]], bit("z", 0.25 + 0.5 * ys[1])

    return plain


def scan(step, x, **options):
    return lax.scan(lambda c, _: (step(c),) * 2, x, None, length=2, **options)[1]


def scan_of_jit(step, x):
    step = jax.jit(step)
    return lax.scan(lambda c, _: (step(c),) * 2, x, None, length=2)[1]


def scan_of_checkpoint(step, x):
    step = jax.checkpoint(step)
    return lax.scan(lambda c, _: (step(c),) * 2, x, None, length=2)[1]


def scan_without_carry_kept(step, x):
    """The state goes round in a dict beside a value that no toss touches, and beside None."""

    def body(c, i):
        y = step(c["y"])
        return {"y": y, "count": c["count"] + i, "nothing": None}, (y, None)

    return lax.scan(body, {"y": x, "count": 0, "nothing": None}, jnp.arange(2))[1][0]


def fori_loop(step, x):
    def body(i, state):
        c, ys = state
        c = step(c)
        return c, ys.at[i].set(c)

    return lax.fori_loop(0, 2, body, (x, jnp.zeros(2)))[1]


def fori_loop_traced(step, x):
    def body(i, state):
        c, ys = state
        c = step(c)
        return c, ys.at[i].set(c)

    return lax.fori_loop(0, jnp.where(x < 2, 2, 3), body, (x, jnp.zeros(2)))[1]


def while_loop(step, x):
    def body(state):
        i, c, ys = state
        c = step(c)
        return i + 1, c, ys.at[i].set(c)

    return lax.while_loop(lambda state: state[0] < 2, body, (0, x, jnp.zeros(2)))[2]


def history(step, x):
    def body(state, i):
        c, path = state
        c = step(c)
        return (c, ppl.append(path, i, c)), None

    return ppl.recall(lax.scan(body, (x, ppl.history(2, x)), jnp.arange(2))[0][1])


CHAINS = {
    "scan": scan,
    "scan, unroll": partial(scan, unroll=2),
    "scan of jit": scan_of_jit,
    "scan of checkpoint": scan_of_checkpoint,
    "scan, a dict as carry": scan_without_carry_kept,
    "jit of scan": lambda step, x: jax.jit(partial(scan, step))(x),
    "checkpoint of scan": lambda step, x: jax.checkpoint(partial(scan, step))(x),
    "fori_loop": fori_loop,
    "fori_loop, traced bounds": fori_loop_traced,
    "while_loop": while_loop,
    "history": history,
}


def drawn_condition(bit, factor, p):
    """A while_loop that tosses in its condition."""

    def going_on(state):
        return bit("more", jnp.where(state[0] < 2, 0.5, 0.0)) == 1

    x = bit("x", p)
    factor(0.5 * x)
    return x, lax.while_loop(going_on, lambda state: (state[0] + 1,), (0,))[0]


def drawn_condition_plain(bit, factor):
    x = bit("x", 0.25)
    factor(0.5 * x)
    turns = 0
    while turns < 2 and bit(f"more[{turns}]", 0.5):
        turns += 1
    return x, turns


def no_steps(bit, factor, p):
    def step(c, _):
        y = bit("y", p)
        factor(y)
        return c + y, y

    x = bit("x", p)
    return lax.scan(step, x, None, length=0)[0]


def unmapped(bit, factor, p):
    """No operand of the site has the axis: there are two copies of it all the same."""

    def copy(q):
        y = bit("y", q)
        factor(0.5 * y)
        return y

    x = bit("x", p)
    return x, jax.vmap(copy, in_axes=None, axis_size=2)(p + 0.5 * x)


def unmapped_plain(bit, factor):
    x = bit("x", 0.25)
    ys = [bit(f"y[{i}]", 0.25 + 0.5 * x) for i in range(2)]
    factor(0.5 * sum(ys))
    return x, ys


def no_copies(bit, factor, p):
    def copy(q):
        y = bit("y", q)
        factor(y)
        return y

    x = bit("x", p)
    return x, jax.vmap(copy)(jnp.zeros(0)).sum()


# ------------------------------------------------------------------ copies: tosses that do not depend on each other


def copies(construct: Callable) -> Callable:
    """``construct(copy, [q0, q1]) -> [y0, y1]``."""

    def program(bit, factor, p):
        def copy(q):
            y = bit("y", q)
            factor(0.5 * y - q)
            return y

        x = bit("x", p)
        ys = construct(copy, jnp.array([0.25, 0.5]) + 0.25 * x)
        return x, ys, bit("z", 0.25 + 0.5 * ys[1])

    return program


def copies_plain(bit, factor, name="y[{}]"):
    x = bit("x", 0.25)
    ys = []
    for i, q in enumerate([0.25 + 0.25 * x, 0.5 + 0.25 * x]):
        ys.append(bit(name.format(i), q))
        factor(0.5 * ys[i] - q)
    return x, ys, bit("z", 0.25 + 0.5 * ys[1])


def vmap_of_last_axis(copy, qs):
    return jax.vmap(lambda q: copy(q[0]), in_axes=-1)(qs[None])


def vmap_of_second_axis(copy, qs):
    return jax.vmap(lambda q: copy(q[0]), in_axes=1)(qs[None])


def vmap_psum(copy, qs):
    def one(q):
        y = copy(q)
        return lax.psum(y, "i") - lax.psum(y, "i") + y

    return jax.vmap(one, axis_name="i")(qs)


def vmap_axis_index(copy, qs):
    return jax.vmap(lambda q: copy(qs[lax.axis_index("i")]), axis_name="i")(qs)


def scan_over_draws(copy, qs):
    return lax.scan(lambda c, q: (c, copy(q)), None, qs)[1]


def custom_vmap_copies(copy, qs):
    rule = jax.custom_batching.custom_vmap(copy)
    rule.def_vmap(lambda size, batched, q: (jax.vmap(copy)(q), batched[0]))
    return jax.vmap(rule)(qs)


COPIES = {
    "map": lax.map,
    "scan over drawn inputs": scan_over_draws,
    "scan over inputs, reverse": lambda copy, qs: lax.scan(lambda c, q: (c, copy(q)), None, qs, reverse=True)[
        1
    ],
    "vmap": lambda copy, qs: jax.vmap(copy)(qs),
    "vmap, in_axes=1": vmap_of_second_axis,
    "vmap, in_axes=-1": vmap_of_last_axis,
    "vmap, axis_name and psum": vmap_psum,
    "vmap, axis_index": vmap_axis_index,
    "vmap of jit": lambda copy, qs: jax.vmap(jax.jit(copy))(qs),
    "jit of vmap": lambda copy, qs: jax.jit(jax.vmap(copy))(qs),
    "vmap of checkpoint": lambda copy, qs: jax.vmap(jax.checkpoint(copy))(qs),
    "vmap of custom_jvp": lambda copy, qs: jax.vmap(custom_jvp(copy))(qs),
    "vmap of custom_vjp": lambda copy, qs: jax.vmap(custom_vjp(copy))(qs),
    "vmap of custom_vmap": custom_vmap_copies,
    "jnp.vectorize": lambda copy, qs: jnp.vectorize(copy)(qs),
    "vmap, spmd_axis_name": lambda copy, qs: jax.vmap(copy, spmd_axis_name="s")(qs),
    "pmap": lambda copy, qs: jax.pmap(copy)(qs[:1]),
}


# ------------------------------------------------------------------ a grid: two rows of two tosses


def grid(construct: Callable) -> Callable:
    """``construct(toss, probabilities) -> ys``, all of shape [2, 2]; rows are independent."""

    def program(bit, factor, qs):
        def toss(c, q):
            y = bit("y", q + 0.25 * c)
            factor(0.5 * y - 0.25 * c)
            return y

        return construct(toss, qs)

    return program


GRID = np.array([[0.25, 0.5], [0.125, 0.375]])


def grid_plain(chained: bool, transposed: bool = False):
    def plain(bit, factor):
        ys = np.zeros((2, 2))
        for i, j in np.ndindex(2, 2):
            c = ys[i, 0] if chained and j == 1 else 0.0
            name = f"y[{j},{i}]" if transposed else f"y[{i},{j}]"
            ys[i, j] = bit(name, GRID[i, j] + 0.25 * c)
            factor(0.5 * ys[i, j] - 0.25 * c)
        return ys

    return plain


def row_scan(toss, row):
    return lax.scan(lambda c, q: (toss(c, q),) * 2, 0.0, row)[1]


def nested_scan(toss, qs):
    return lax.scan(lambda total, row: (total, row_scan(toss, row)), 0.0, qs)[1]


def scan_of_vmap(toss, qs):
    step = lambda c, column: (jax.vmap(toss)(c, column),) * 2  # noqa: E731
    return lax.scan(step, jnp.zeros(2), qs.T)[1].T


def vmaps_of_different_axes(toss, qs):
    return jax.vmap(jax.vmap(partial(toss, 0.0)), in_axes=1, out_axes=1)(qs)


GRIDS = {
    "vmap of vmap": (lambda toss, qs: jax.vmap(jax.vmap(partial(toss, 0.0)))(qs), grid_plain(False)),
    "vmap of vmap, in_axes=1, out_axes=1": (vmaps_of_different_axes, grid_plain(False, True)),
    "vmap of scan": (lambda toss, qs: jax.vmap(partial(row_scan, toss))(qs), grid_plain(True, True)),
    "scan of scan": (nested_scan, grid_plain(True)),
    "scan of vmap": (scan_of_vmap, grid_plain(True, True)),
    "map of vmap": (lambda toss, qs: lax.map(jax.vmap(partial(toss, 0.0)), qs), grid_plain(False)),
}


# ------------------------------------------------------------------ branches


def cond_on_a_draw(bit, factor, p):
    x = bit("x", p)

    def heads():
        y = bit("y", 0.25)
        factor(0.5 * y)
        return y

    return x, lax.cond(x == 1, heads, lambda: 2.0), bit("z", 0.25 + 0.5 * x)


def cond_on_a_draw_plain(bit, factor):
    x = bit("x", 0.25)
    y = 2
    if x:
        y = bit("y", 0.25)
        factor(0.5 * y)
    return x, y, bit("z", 0.25 + 0.5 * x)


def switch_on_draws(bit, factor, p):
    x = bit("x", p)
    y = bit("y", 0.5)

    def third():
        factor(0.25)
        return bit("b", 0.75) + 2

    branches = [lambda: bit("a", 0.25), lambda: (factor(-0.5), 4.0)[1], third]
    return x, y, lax.switch((x + y).astype(int), branches)


def switch_on_draws_plain(bit, factor):
    x = bit("x", 0.25)
    y = bit("y", 0.5)
    if x + y == 0:
        return x, y, bit("a", 0.25)
    factor(-0.5 if x + y == 1 else 0.25)
    return x, y, 4 if x + y == 1 else bit("b", 0.75) + 2


def vmap_of_cond(bit, factor, p):
    """The predicates are drawn and differ between members."""

    def member(q):
        x = bit("x", q)

        def heads(q):
            y = bit("y", q)
            factor(0.5 * y)
            return y

        return x, lax.cond(x == 1, heads, lambda q: 2.0, q)

    return jax.vmap(member)(jnp.stack([p, 2 * p]))


def vmap_of_cond_plain(bit, factor):
    xs, ys = [], []
    for i, q in enumerate([0.25, 0.5]):
        xs.append(bit(f"x[{i}]", q))
        ys.append(bit(f"y[{i}]", q) if xs[i] else 2)
        if xs[i]:
            factor(0.5 * ys[i])
    return xs, ys


def scan_of_cond(bit, factor, p):
    def step(c, q):
        def heads():
            y = bit("y", q)
            factor(0.5 * y)
            return y

        x = bit("x", q)
        y = lax.cond(x == 1, heads, lambda: 2.0)
        return c, (x, y)

    return lax.scan(step, 0.0, jnp.stack([p, 2 * p]))[1]


def cond_of_scan(bit, factor, p):
    def heads():
        def step(c, _):
            y = bit("y", 0.25 + 0.5 * c)
            factor(0.5 * y)
            return y, y

        return lax.scan(step, 0.0, None, length=2)[1]

    x = bit("x", p)
    return x, lax.cond(x == 1, heads, lambda: jnp.full(2, 2.0))


def cond_of_scan_plain(bit, factor):
    x, c, ys = bit("x", 0.25), 0, [2, 2]
    if x:
        for i in range(2):
            ys[i] = c = bit(f"y[{i}]", 0.25 + 0.5 * c)
            factor(0.5 * c)
    return x, ys


def cond_in_cond(bit, factor, p):
    def outer():
        y = bit("y", 0.25)
        return 2 + 2 * y + lax.cond(y == 1, lambda: bit("w", 0.75), lambda: 0.0)

    x = bit("x", p)
    factor(0.25 * x)
    return x, lax.cond(x == 1, outer, lambda: 0.0)


def cond_in_cond_plain(bit, factor):
    x = bit("x", 0.25)
    factor(0.25 * x)
    if not x:
        return x, 0
    y = bit("y", 0.25)
    return x, 2 + 2 * y + (bit("w", 0.75) if y else 0)


def bounded_loop(bit, factor, p):
    def body(carry):
        i, x = carry
        x = bit("x", p)
        factor(0.5 * x)
        return i + 1, x

    return ppl.loop(lambda carry: carry[1] == 0, body, (0, 0.0), max_steps=2)


def bounded_loop_plain(bit, factor):
    i, x = 0, 0
    while x == 0 and i < 2:
        x = bit(f"x[{i}]", 0.25)
        factor(0.5 * x)
        i += 1
    return i, x


BRANCHES = {
    "cond on a draw": (cond_on_a_draw, cond_on_a_draw_plain),
    "switch on draws": (switch_on_draws, switch_on_draws_plain),
    "vmap of cond on a draw": (vmap_of_cond, vmap_of_cond_plain),
    "scan of cond on a draw": (scan_of_cond, vmap_of_cond_plain),
    "cond of scan": (cond_of_scan, cond_of_scan_plain),
    "cond in cond": (cond_in_cond, cond_in_cond_plain),
    "loop": (bounded_loop, bounded_loop_plain),
}


# ------------------------------------------------------------------ the rest


def scopes(bit, factor, p):
    """One compiled function under two scopes is two sites."""
    block = jax.jit(lambda q: bit("y", q))
    x = bit("x", p)
    factor(0.5 * x)
    with ppl.scope("first"):
        first = block(0.25 + 0.5 * x)
    with ppl.scope("second"):
        return x, first, block(0.25 + 0.5 * first)


def scopes_plain(bit, factor):
    x = bit("x", 0.25)
    factor(0.5 * x)
    first = bit("first/y", 0.25 + 0.5 * x)
    return x, first, bit("second/y", 0.25 + 0.5 * first)


def unused(bit, factor, p):
    """A site whose value nobody uses still has a density, and its factor counts."""

    @jax.jit
    def forgotten(x):
        factor(0.5 * x)
        return None

    x = bit("x", p)
    forgotten(x)
    return x


def only_x(bit, factor):
    x = bit("x", 0.25)
    factor(0.5 * x)
    return x


def twice(bit, factor, p):
    f = jax.jit(lambda p: bit("x", p))
    return f(p) + f(p)


def keys_as_arguments(bit, factor, p, keys):
    noise = jax.vmap(jax.random.bernoulli)(keys)
    x = bit("x", p)
    factor(0.5 * x)
    return x + 0 * noise.sum()


OTHERS = {
    "while_loop, a draw in its condition": (drawn_condition, drawn_condition_plain),
    "one jitted function under two scopes": (scopes, scopes_plain),
    "jit, of a function that returns nothing": (unused, only_x),
    "vmap, in_axes=None": (unmapped, unmapped_plain),
    "jit, called twice under one address": (twice, only_x),
}
QUARTER = jnp.array(0.25)
ROWS = [
    *(Row(name, around(construct), around_plain, (QUARTER,)) for name, construct in AROUND.items()),
    *(
        Row(f"between sites: {name}", between(*them), around_plain, (QUARTER,))
        for name, them in BETWEEN.items()
    ),
    *(Row(name, chain(construct), chain_plain(), (QUARTER,)) for name, construct in CHAINS.items()),
    Row("scan, reverse", chain(partial(scan, reverse=True)), chain_plain((1, 0)), (QUARTER,)),
    *(Row(name, copies(construct), copies_plain, (QUARTER,)) for name, construct in COPIES.items()),
    Row(
        "map, batch_size",
        copies(partial(lax.map, batch_size=2)),
        partial(copies_plain, name="y[0,{}]"),
        (QUARTER,),
    ),
    *(
        Row(name, grid(construct), plain, (jnp.asarray(GRID, jnp.float32),))
        for name, (construct, plain) in GRIDS.items()
    ),
    *(Row(name, program, plain, (QUARTER,)) for name, (program, plain) in BRANCHES.items()),
    *(Row(name, program, plain, (QUARTER,)) for name, (program, plain) in OTHERS.items()),
    Row("scan of length 0", no_steps, lambda bit, factor: bit("x", 0.25), (QUARTER,)),
    Row("vmap of size 0", no_copies, lambda bit, factor: (bit("x", 0.25), 0), (QUARTER,)),
    Row("keys as arguments", keys_as_arguments, only_x, (QUARTER, jax.random.split(jax.random.key(1), 2))),
]
