"""Methods of the results tables at their published places and weights, for any pair of networks.

`following(name, layers)` returns the student's terms, its adapters, and critics as further roles.
Weights are those of the papers' CIFAR-100 code; a table may scale them by `scale`.
"""

from typing import NamedTuple

T = {"toward": "teacher"}


class Layers(NamedTuple):
    """Names of layers, from shallow to deep, and the teacher's numbers.

    `own_stages` and `stages`: maps of the student and the teacher; `own_before` and `before`:
    the same before their ReLU; `norms`: the teacher's batch norms there; `widths`: the teacher's
    channels; `pooled`: its vector's width. `same`: the student has as many channels everywhere.
    """

    own_stages: tuple[str, ...]
    stages: tuple[str, ...]
    own_before: tuple[str, ...]
    before: tuple[str, ...]
    norms: tuple[str, ...]
    widths: tuple[int, ...]
    pooled: int
    same: bool


def stages_of(norm: str, widths: tuple[int, ...], *, same: bool) -> Layers:
    """Name the stages of two networks of one family; `norm` as "layer{}_*/bn2"."""
    numbers = range(1, len(widths) + 1)
    after = tuple(f"stage{i}" for i in numbers)
    before = tuple(f"{name}_pre" for name in after)
    norms = tuple(norm.format(i) for i in numbers)
    return Layers(after, after, before, before, norms, widths, widths[-1], same)


def following(name: str, layers: Layers, *, warm: int = 0, scale: float = 1.0) -> dict:
    """Return {"terms", "adapters", "critics"} of a method.

    Args:
        name: one of METHODS.
        layers: of the pair.
        warm: steps before the rest of FSP's, AB's and FT's own.
        scale: a factor on the weight of what the method adds to cross-entropy.
    """
    terms, adapters, critics = METHODS[name](layers, max(warm, 1))
    for term, table in (*terms.items(), *(t for c in critics.values() for t in c["terms"].items())):
        if term not in ("ce", "view_cross_entropy", "paraphrase"):
            table["weight"] = table.get("weight", 1.0) * scale
    terms = {"ce": {}, **terms}
    return {"terms": terms, "adapters": adapters, "critics": critics}


def _logits(name: str, weight: float, ce: float = 1.0, **scalars: float):
    return lambda layers, warm: (
        {"ce": {"weight": ce}, name: {**T, "weight": weight, **scalars}}, {}, {}
    )  # fmt: skip


def _vectors(**weights: float):
    """Relations between vectors, or a term with its default layers."""
    return lambda layers, warm: ({n: {**T, "weight": w} for n, w in weights.items()}, {}, {})


def _maps(name: str, weight: float):
    def method(layers: Layers, warm: int):
        names = {"own_layers": layers.own_stages, "peer_layers": layers.stages}
        return {name: {**T, "weight": weight, **names}}, {}, {}

    return method


def _sp(layers: Layers, warm: int):
    names = {"own_layer": layers.own_stages[-1], "peer_layer": layers.stages[-1]}
    return {"similarity_preserving": {**T, "weight": 3000.0, **names}}, {}, {}


def _hint(layers: Layers, warm: int):
    index = min(1, len(layers.stages) - 1)
    adapter = _connector(layers.own_stages[index : index + 1], layers.widths[index : index + 1])
    names = {"own_layer": "hint1", "peer_layer": layers.stages[index]}
    return {"feature_mse": {**T, "weight": 100.0, **names}}, {"hint": {**adapter, "relu": True}}, {}


def _connector(own: tuple[str, ...], widths: tuple[int, ...]) -> dict:
    return {"kind": "connector", "layers": own, "widths": widths}


def _fsp(layers: Layers, warm: int):
    """Through a connector where the channels differ, which the published method cannot take."""
    own, adapters = layers.own_stages, {}
    if not layers.same:
        adapters = {"connector": _connector(own, layers.widths)}
        own = tuple(f"connector{i}" for i in range(1, len(own) + 1))
    names = {"own_layers": own, "peer_layers": layers.stages}
    term = {**T, "weight": 50.0, **names, "until_step": warm}
    return {"ce": {"from_step": warm}, "flow_of_solution": term}, adapters, {}


def _ab(layers: Layers, warm: int):
    term = {**T, "weight": 0.003, "peer_layers": layers.before, "until_step": warm}
    adapters = {"connector": _connector(layers.own_before, layers.widths)}
    return {"ce": {"from_step": warm}, "activation_boundary": term}, adapters, {}


def _ofd(layers: Layers, warm: int):
    names = {"peer_layers": layers.before, "norms": layers.norms}
    adapters = {"connector": _connector(layers.own_before, layers.widths)}
    return {"margin_relu_distance": {**T, "weight": 1e-3, **names}}, adapters, {}


def _srrl(layers: Layers, warm: int):
    connector = _connector(layers.own_stages[-1:], layers.widths[-1:])
    term = {**T, "weight": 1.0, "own_layer": "connector1"}
    return {"softmax_regression": term}, {"connector": {**connector, "relu": True}}, {}


def _srd(layers: Layers, warm: int):
    terms = {
        "log_sum_distance": {**T, "weight": 1.0, "own_layer": "projected"},
        "forward_kl": {**T, "weight": 1.0, "temperature": 1.0},
    }
    return terms, {"projected": {"layer": "pooled", "width": layers.pooled}}, {}


def _nd(layers: Layers, warm: int):
    term = {**T, "weight": 2.0, "own_layer": "projected"}
    return {"norm_direction": term}, {"projected": {"layer": "pooled", "width": layers.pooled}}, {}


def _mlld(layers: Layers, warm: int):
    ce = {"weight": 0.1}
    return (
        {"ce": ce, "view_cross_entropy": dict(ce), "multi_level_kl": {**T, "weight": 0.9}},
        {},
        {},
    )


def _critic(name: str, **terms: float):
    """A critic between the vectors."""
    table = {"between": ("student", "teacher"), "model": {"name": name}}
    return lambda layers, warm: (
        {}, {}, {"critic": {**table, "terms": {n: {"weight": w} for n, w in terms.items()}}}
    )  # fmt: skip


def _vid(layers: Layers, warm: int):
    names = {"own_layers": layers.own_stages, "peer_layers": layers.stages}
    model = {"name": "variational_information", **names}
    terms = {"variational_information": {"weight": 1.0}}
    return {}, {}, {"critic": {"between": ("student", "teacher"), "model": model, "terms": terms}}


def _ft(layers: Layers, warm: int):
    names = {"own_layer": layers.own_stages[-1], "peer_layer": layers.stages[-1]}
    terms = {
        "paraphrase": {"weight": 1.0, "until_step": warm},
        "spatial_factor_transfer": {"weight": 200.0, "from_step": warm},
    }
    critic = {
        "between": ("student", "teacher"),
        "model": {"name": "factor_transfer", **names},
        "terms": terms,
    }
    return {"ce": {"from_step": warm}}, {}, {"critic": critic}


METHODS = {
    "kd": _logits("forward_kl", 0.9, 0.1, temperature=4.0),
    "hint": _hint,
    "at": _maps("attention_transfer", 1000.0),
    "sp": _sp,
    "cc": _critic("correlation_congruence", correlation_congruence=0.02),
    "vid": _vid,
    "rkd": _vectors(relational_distance=25.0, relational_angle=50.0),
    "pkt": _vectors(probabilistic_knowledge_transfer=30000.0),
    "ab": _ab,
    "ft": _ft,
    "fsp": _fsp,
    "nst": _maps("neuron_selectivity", 50.0),
    "crd": _critic("contrast", contrast=0.8),
    "kdsvd": _maps("singular_vectors", 1.0),
    "ofd": _ofd,
    "srrl": _srrl,
    "srd": _srd,
    "cat_kd": _logits("class_activation", 5.0),
    "nd": _nd,
    "dkd": _logits("decoupled_kl", 1.0, alpha=1.0, beta=8.0, temperature=4.0),
    "dist": _logits("correlation", 2.0, beta=1.0, gamma=1.0, temperature=4.0),
    "logit_std": _logits("standardized_kl", 9.0, 0.1, temperature=2.0),
    "mlld": _mlld,
    "sdd_kd": _logits("regional_kl", 0.9, 0.1, temperature=4.0),
    "sdd_dkd": _logits("regional_decoupled_kl", 1.0, alpha=1.0, beta=8.0, temperature=4.0),
}


def roles_of(method: dict, critic_optimizer: dict) -> dict:
    """Return the roles of a variant in which the student follows "teacher" by a method.

    Critics have an optimizer of their own, `critic_optimizer`.
    """
    critics = {
        name: {**critic, "optimizer": dict(critic_optimizer)}
        for name, critic in method["critics"].items()
    }
    student = {"terms": method["terms"], "adapters": method["adapters"]}
    return {"student": student, **critics}
