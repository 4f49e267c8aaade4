"""What programs mean: exact denotations."""

from .budget import Budget
from .de_finetti import Mixture, de_finetti
from .denoted import weighted
from .invariance import (
    assert_detailed_balance,
    assert_leaves_invariant,
    detailed_balance,
    keyed,
    leaves_invariant,
)
from .joint_distribution_test import assert_joint_distribution_test, joint_distribution_test
from .laws import RepresentationLaws
from .meaning import meaning
from .measure import Difference, Measure
from .preserves import assert_preserves, preserves
from .properly_weighted import assert_properly_weighted, properly_weighted
from .quadrature import Quadrature, QuadratureError
from .random_functions import (
    assert_commutes,
    assert_exchangeable,
    assert_same_function_law,
    commutes,
    exchangeable,
    extensional,
    same_function_law,
)
from .report import CheckFailed, Counterexample, Report
from .representations import (
    Populations,
    Programs,
    Representation,
    Resumption,
    Sampling,
    Suspended,
    Traced,
    Weighted,
    finish,
    one_member,
    particles,
    replicate,
    resample,
    without_choices,
)
from .same_distribution import assert_same_distribution, same_distribution
from .simulation_based_calibration import (
    DENSITIES,
    CalibrationReport,
    assert_simulation_based_calibration,
    simulation_based_calibration,
)
from .small_programs import SMALL_PROGRAMS
from .static.absolute_continuity import AbsoluteContinuity, absolute_continuity
from .static.check import check
from .static.finding import Finding, Review
from .static.independence import Independence, independences, independent
from .static.smoothness import SiteSmoothness, Smoothness, smoothness
from .target import Target
from .unbiased import assert_unbiased, unbiased
