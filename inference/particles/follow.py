"""The policy of members that all make the choices which sites carry."""

from __future__ import annotations

from ...ppl import Masked
from ...ppl.carried import carried, of_member_0
from ...ppl.density import reach, score, unreached
from ...ppl.effects import Site
from ...ppl.members import Kind, map_members
from ...ppl.policy import Cloud, Draw, Extension


class Follow(Draw):
    """Members go where the carried choices lead from where they are, and are weighed by the density on the way.

    The density is zero for a member that does not come by a site whose choice is present.
    """

    records = False
    draws = Kind.SHARED

    def extend(self, site: Site, operands, cloud: Cloud) -> Extension:
        def density(*operands):
            choice = carried(site, operands)
            log_density = score(site, operands, choice)
            if isinstance(choice, Masked):
                log_density = log_density + unreached(choice, reach(site, operands, choice))
            return log_density

        choice = carried(site, of_member_0(operands))
        value = choice.value if isinstance(choice, Masked) else choice
        return Extension(value, map_members(density, operands, cloud.log_weight.shape[0]))
