"""Inference: transformations of programs into programs that approximate what they denote."""

from .compose import KernelError, cycle, mixture, repeat
from .conditional_smc import conditional_smc
from .draws import Draws
from .elbo import elbo
from .elliptical_slice import elliptical_slice
from .enumerate import enumerate
from .expectation_grad import expectation_grad, expectation_value_and_grad
from .gibbs import gibbs
from .gradient_kernel import Trajectory
from .hmc import hmc
from .importance import importance
from .kernel import Kernel, Stage, State
from .mala import mala
from .mcmc import mcmc
from .mh import Acceptance, mh
from .nuts import nuts
from .particle_gibbs import particle_gibbs
from .pmmh import pmmh
from .pseudo_marginal import pseudo_marginal
from .resampling import Resampling, killing, multinomial, residual, ssp, stratified, systematic
from .slice import slice
from .smc import smc
from .tuning import Tuning
