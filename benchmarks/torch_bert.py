"""A small BERT in plain PyTorch, the baseline of `transformer.py`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Layer(nn.Module):
    """Attention and two linear maps with normalised residual sums."""

    def __init__(self, width: int, ffn_width: int, heads: int, dropout: float) -> None:
        """Create the layers."""
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.ffn_in, self.ffn_out = nn.Linear(width, ffn_width), nn.Linear(ffn_width, width)
        self.attention_norm, self.ffn_norm = (nn.LayerNorm(width, eps=1e-12) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Any, mask: Any) -> Any:
        """Map [batch, length, width] to the same shape."""
        split = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        q, k, v = (f(x).view(split).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = functional.scaled_dot_product_attention(q, k, v, mask, dropout_p=self.rate)
        y = self.out(y.transpose(1, 2).reshape(x.shape))
        x = self.attention_norm(x + self.dropout(y))
        y = self.ffn_out(functional.gelu(self.ffn_in(x)))
        return self.ffn_norm(x + self.dropout(y))


class Bert(nn.Module):
    """Embeddings, layers, pooler and head."""

    def __init__(self, shapes: Mapping[str, Any], layers: int, heads: int, dropout: float) -> None:
        """Create the network with the sizes of kdjax's arrays."""
        super().__init__()
        classes = shapes["fc/bias"][0]
        (vocabulary, width), ffn_width = shapes["word/embedding"], shapes["layer0/ffn_in/bias"][0]
        self.word = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(shapes["position/embedding"][0], width)
        self.token_type = nn.Embedding(2, width)
        self.embedding_norm = nn.LayerNorm(width, eps=1e-12)
        self.layer = nn.ModuleList(Layer(width, ffn_width, heads, dropout) for _ in range(layers))
        self.pooler, self.fc = nn.Linear(width, width), nn.Linear(width, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Any, mask: Any, types: Any) -> Any:
        """Map token ids [batch, length] to logits."""
        x = self.word(ids) + self.position.weight[: ids.shape[1]] + self.token_type(types)
        x = self.dropout(self.embedding_norm(x))
        for layer in self.layer:
            x = layer(x, mask[:, None, None, :])
        return self.fc(self.dropout(torch.tanh(self.pooler(x[:, 0]))))


def stepper(
    weights: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
    layers: int,
    heads: int,
    dropout: float,
    rate: float,
    decay: float,
) -> Callable[[], float]:
    """Return a training step from kdjax's weights (`models.flatten`); it returns the loss."""
    named = {name.removeprefix("params/"): array for name, array in weights.items()}
    model = Bert({k: v.shape for k, v in named.items()}, layers, heads, dropout)
    state = {}
    for name, array in named.items():
        module, leaf = name.rsplit("/", 1)
        module = module.replace("layer", "layer.").replace("/attention/", "/").replace("/", ".")
        array = array.T if leaf == "kernel" else array
        kind = "bias" if leaf == "bias" else "weight"
        state[f"{module}.{kind}"] = torch.from_numpy(np.array(array, order="C"))
    model.load_state_dict(state)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    ids, types, labels = (
        torch.from_numpy(batch[key]).long() for key in ("input_ids", "token_type_ids", "label")
    )
    mask = torch.from_numpy(batch["attention_mask"]).bool()

    def step() -> float:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(ids, mask, types), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
