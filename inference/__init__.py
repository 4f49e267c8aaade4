"""Inference: transformations of programs into programs that approximate what they denote."""

from .beam import beam
from .checkpoint import CheckpointError
from .compose import KernelError, cycle, mixture, repeat
from .conditional_smc import conditional_smc
from .discrete_smc import discrete_smc
from .draws import Draws
from .elbo import elbo
from .elliptical_slice import elliptical_slice
from .enumerate import enumerate
from .expectation_grad import expectation_grad, expectation_value_and_grad
from .from_blackjax import from_blackjax
from .gibbs import gibbs
from .gradient_kernel import Trajectory
from .hmc import hmc
from .ibis import ibis
from .importance import importance
from .kernel import Kernel, Loop, Stage, State
from .log_likelihood import log_likelihood, log_predictive_density
from .loo import Loo, loo
from .mala import mala
from .mclmc import mclmc
from .mcmc import mcmc
from .metropolis import Acceptance
from .mh import mh
from .nuts import nuts
from .parallel_tempering import Exchange, parallel_tempering
from .particle_gibbs import particle_gibbs
from .pmmh import pmmh
from .posterior_draw import posterior_draw
from .posterior_marginals import Marginal, posterior_marginals
from .posterior_mode import posterior_mode
from .predictive import Prediction, predictive, prior_predictive
from .pseudo_marginal import pseudo_marginal
from .psis import Psis, psis
from .resampling import Resampling, killing, multinomial, residual, ssp, stratified, systematic
from .run import Run
from .slice import slice
from .smc import smc
from .smc2 import smc2
from .tempered import tempered
from .tempered_smc import tempered_smc
from .to_blackjax import to_blackjax
from .tuning import Tuning
