"""The digests by which a resumed run recognises its frozen networks."""

from types import SimpleNamespace

import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.experiment.build.plan import InitialWeights
from kdjax.experiment.run import train
from kdjax.train import checkpoint
from kdjax.types import Variables

GROUP = SimpleNamespace(variant=SimpleNamespace(name="kd"))
PROGRAM = SimpleNamespace(method=SimpleNamespace(trains=("student",)))


def teacher(weight, output):
    network = Variables({"w": np.float32([weight])}, {})
    cached = models.attach_cache(network, {"logits": np.float32([output])})
    return {"teacher": InitialWeights(cached, stacked=False)}


@pytest.mark.parametrize("older", [False, True], ids=["now", "with the outputs"])
def test_cached_outputs_of_another_machine_are_no_other_weights(older):
    begun = teacher(1.0, 2.0)
    stored = train._frozen_digests(begun, PROGRAM)
    if older:
        stored = {"teacher": checkpoint.digest(begun["teacher"].variables)}

    def resume(weights):
        train._check_frozen(GROUP, weights, train._frozen_digests(weights, PROGRAM), stored)

    resume(begun)
    if not older:
        resume(teacher(1.0, np.nextafter(np.float32(2), np.float32(3))))
    with pytest.raises(UserError, match=r"roles\.teacher of kd: its weights have changed"):
        resume(teacher(1.5, 2.0))
