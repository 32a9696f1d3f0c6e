"""Importing a module registers its tests, in this order."""
from . import framing, bounds, traps_produce, traps_fetch, traps_admin, traps_groups  # noqa: F401
from . import clients, cross, java_tools, groups, restart, nodes, disk, memory, refusals, cleaning, dump  # noqa: F401
