"""CRD's critic: two linear heads of equal width, and a memory of the training set's embeddings."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses
from kdjax.distill.terms import Critic, Scalar, feature_width
from kdjax.distill.terms.spec import FRACTION, POSITIVE
from kdjax.errors import UserError, check_count
from kdjax.models.layers.layers import linear
from kdjax.types import Array, Outputs, Variables

TERMS = {
    "contrast": {
        "temperature": Scalar(0.07, POSITIVE),
        "momentum": Scalar(0.5, FRACTION),
    }
}


def contrast(
    labels: np.ndarray,
    *,
    width: int = 128,
    num_negatives: int = 16384,
    own_layer: str = "pooled",
    peer_layer: str = "pooled",
) -> Critic:
    """CRD: distinguish the teacher's embedding of an image from those of images of other classes.

    Both layers, [batch, features], go through a linear head of `width`; `losses.contrast_loss`
    compares them with a memory that has one row per training image and is the critic's stats. The
    only term is "contrast", with scalars `temperature` and `momentum`.

    Args:
      labels: [rows] class indices of the training split, in the order of batch["id"].
      width: width of the embeddings.
      num_negatives: images of other classes per image of the batch, drawn with replacement.
      own_layer: a feature of the student.
      peer_layer: a feature of the teacher.

    Raises:
      UserError: labels of a single class, width or num_negatives below 1; by init, a layer that is
        not [batch, features].

    Source: Tian et al. 2020 (arXiv 1910.10699), section 3; width, negatives, T and momentum are
    those of the published code.

    >>> contrast(np.array([0, 1, 1]), width=8, num_negatives=4).layers
    (('pooled', 'pooled'),)
    """
    labels = np.asarray(labels)
    for name, value in (("width", width), ("num_negatives", num_negatives)):
        check_count(name, value)
    if labels.size == 0 or (labels == labels[0]).all():
        raise UserError(
            "all training examples have the same class, so contrast has no negatives; it needs two "
            "classes or more"
        )
    head = linear(width, name="head")

    def init(key: Array, student: Outputs, teacher: Outputs, batch) -> Variables:
        student_key, teacher_key, memory_key = jax.random.split(key, 3)
        student_width = feature_width(student, own_layer, "contrast")
        teacher_width = feature_width(teacher, peer_layer, "contrast")
        params = {
            "student": head.init(student_key, jnp.zeros((1, student_width)))["params"],
            "teacher": head.init(teacher_key, jnp.zeros((1, teacher_width)))["params"],
        }
        return Variables(params, losses.contrast_init(memory_key, labels, width=width))

    def loss(variables: Variables, student: Outputs, teacher: Outputs, batch, scalars, key: Array):
        params, memory = variables
        value, new_memory = losses.contrast_loss(
            jnp.asarray(head.apply({"params": params["student"]}, student.features[own_layer])),
            jnp.asarray(head.apply({"params": params["teacher"]}, teacher.features[peer_layer])),
            batch["id"],
            memory,
            key,
            num_negatives=num_negatives,
            mask=batch["mask"],
            **scalars["contrast"],
        )
        return {"contrast": value}, new_memory, {}

    layers = ((own_layer, peer_layer),)
    return Critic(init, loss, TERMS, layers, coupled=True, needs=("id",))
