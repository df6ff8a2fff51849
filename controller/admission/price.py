"""What dividing keys costs beside not dividing them. A pure function of a view."""

from __future__ import annotations

from controller.admission.admit import Demand
from controller.admission.classes import CLASSES
from controller.admission.reservations import Reservations
from controller.paths.compute import NoPath, best_path
from controller.paths.policies import Policy
from controller.view import NetworkView


def undivided(view: NetworkView, reservations: Reservations, demand: Demand, policy: Policy = Policy.RESIDUAL) -> float:
    """Bits of link key that a bit of key would cost over the best single path that its class allows; 0: there is none.

    View and reservations are as for `admit`.
    """
    view = reservations.onto(view, reservations.links_of(demand.id), without=demand.id)
    service_class = CLASSES[demand.service_class]
    constraints = service_class.constraints(demand.rate, demand.constraints)
    try:
        path = best_path(view, demand.source, demand.target, constraints, policy)
    except NoPath:
        return 0.0
    return max(service_class.expansion, 1.0) * path.hops
