"""Two training steps in which the last half of the batch has no instance, by all processes that were started:
`python team_step.py FILE` writes the networks after them."""

from __future__ import annotations

import sys
from typing import Any

import torch
from training_worlds import SMALL, networks_of, random_batch, step_of

from instapipe.training.team import join

COUNTS = ([2, 1, 0, 0], [1, 1, 0, 0])


def main() -> None:
    """See the module."""
    torch.set_num_threads(1)
    config = SMALL.model_copy(update={"augment": True, "pool_size": 3})
    networks = networks_of(config).double()
    step = step_of(config, networks, rate=1e-3)
    step.team = join(torch.device("cpu"))
    history: list[dict[str, Any]] = []
    for number in range(2):
        source, target = (random_batch(10 * number + k, COUNTS[k]) for k in range(2))
        found = step(source, target, number, torch.Generator().manual_seed(number))
        history += [step.team.average(metrics) for metrics in found]
    if step.team.leads:
        torch.save({"networks": networks.state_dict(), "history": history}, sys.argv[1])


main()
