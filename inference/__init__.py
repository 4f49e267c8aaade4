"""Inference: transformations of programs into programs that approximate what they denote."""

from .enumerate import enumerate
from .importance import importance
from .resampling import Resampling, killing, multinomial, residual, ssp, stratified, systematic
from .smc import smc
