"""Inference: transformations of programs into programs that approximate what they denote."""

from .chains.diagnostics import energy_bfmi, ess_bulk, ess_mean, ess_tail, rhat
from .chains.draws import Draws
from .chains.mcmc import mcmc
from .checkpoint import CheckpointError
from .exact.collapse import collapse
from .exact.conjugate import conjugate
from .exact.enumerate import enumerate
from .exact.posterior_draw import posterior_draw
from .exact.posterior_marginals import Marginal, posterior_marginals
from .exact.posterior_mode import posterior_mode
from .exact.run import Run
from .gradients.elbo import elbo
from .gradients.expectation_grad import expectation_grad, expectation_value_and_grad
from .gradients.fit import fit
from .gradients.fitted import Fit
from .kernels.chees import chees
from .kernels.compose import KernelError, cycle, mixture, repeat
from .kernels.elliptical_slice import elliptical_slice
from .kernels.from_blackjax import from_blackjax
from .kernels.gibbs import gibbs
from .kernels.gradient_kernel import Trajectory
from .kernels.hmc import hmc
from .kernels.kernel import Kernel, Loop, Stage, State
from .kernels.mala import mala
from .kernels.mclmc import mclmc
from .kernels.meads import meads
from .kernels.metropolis import Acceptance
from .kernels.mh import mh
from .kernels.nuts import nuts
from .kernels.parallel_tempering import Exchange, parallel_tempering
from .kernels.particle_gibbs import particle_gibbs
from .kernels.pmmh import pmmh
from .kernels.slice import slice
from .kernels.to_blackjax import to_blackjax
from .kernels.tuning import Tuning
from .particles.backward_simulation import backward_simulation
from .particles.beam import beam
from .particles.conditional_smc import conditional_smc
from .particles.discrete_smc import discrete_smc
from .particles.genealogy import Genealogy, genealogy
from .particles.ibis import ibis
from .particles.importance import importance
from .particles.island_smc import island_smc
from .particles.pool import pool
from .particles.pseudo_marginal import pseudo_marginal
from .particles.repeated import repeated
from .particles.resampling import Resampling, killing, multinomial, residual, ssp, stratified, systematic
from .particles.runs import Runs
from .particles.smc import smc
from .particles.smc2 import smc2
from .particles.tempered import tempered
from .particles.tempered_smc import tempered_smc
from .particles.until import until
from .predicting.log_likelihood import log_likelihood, log_predictive_density
from .predicting.loo import Loo, loo
from .predicting.predictive import Prediction, predictive, prior_predictive
from .predicting.psis import Psis, psis
