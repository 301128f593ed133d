"""Keys of config.json by family, and the options of `models.build` with the same values."""

from collections.abc import Mapping

_BERT = {
    "vocab_size": "vocab_size",
    "num_hidden_layers": "num_layers",
    "hidden_size": "width",
    "num_attention_heads": "num_heads",
    "intermediate_size": "ffn_width",
    "max_position_embeddings": "max_length",
    "type_vocab_size": "token_types",
    "hidden_act": "activation",
    "layer_norm_eps": "epsilon",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "classifier_dropout": "head_dropout",
}
_DISTILBERT = {
    "vocab_size": "vocab_size",
    "n_layers": "num_layers",
    "dim": "width",
    "n_heads": "num_heads",
    "hidden_dim": "ffn_width",
    "max_position_embeddings": "max_length",
    "activation": "activation",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "seq_classif_dropout": "head_dropout",
}
_T5 = {
    "vocab_size": "vocab_size",
    "num_layers": "num_layers",
    "d_model": "width",
    "num_heads": "num_heads",
    "d_kv": "head_width",
    "d_ff": "ffn_width",
    "relative_attention_num_buckets": "buckets",
    "layer_norm_epsilon": "epsilon",
    "dropout_rate": "dropout",
    "scale_decoder_outputs": "scale_outputs",
}
_GPT_NEO = {
    "vocab_size": "vocab_size",
    "num_layers": "num_layers",
    "hidden_size": "width",
    "num_heads": "num_heads",
    "intermediate_size": "ffn_width",
    "max_position_embeddings": "max_length",
    "window_size": "window",
    "activation_function": "activation",
    "layer_norm_epsilon": "epsilon",
    "resid_dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "embed_dropout": "embedding_dropout",
}
_GPT2 = {
    "vocab_size": "vocab_size",
    "n_layer": "num_layers",
    "n_embd": "width",
    "n_head": "num_heads",
    "n_inner": "ffn_width",
    "n_positions": "max_length",
    "scale_attn_weights": "scaled",
    "activation_function": "activation",
    "layer_norm_epsilon": "epsilon",
    "resid_pdrop": "dropout",
    "attn_pdrop": "attention_dropout",
    "embd_pdrop": "embedding_dropout",
}
_LLAMA = {
    "vocab_size": "vocab_size",
    "num_hidden_layers": "num_layers",
    "hidden_size": "width",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_width",
    "intermediate_size": "ffn_width",
    "max_position_embeddings": "max_length",
    "hidden_act": "activation",
    "rms_norm_eps": "epsilon",
    "attention_dropout": "attention_dropout",
}
_VIT = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "num_hidden_layers": "num_layers",
    "hidden_size": "width",
    "num_attention_heads": "num_heads",
    "intermediate_size": "ffn_width",
    "qkv_bias": "attention_bias",
    "hidden_act": "activation",
    "layer_norm_eps": "epsilon",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}
KEYS: Mapping[str, Mapping[str, str]] = {
    "bert": _BERT,
    "distilbert": _DISTILBERT,
    "roberta": _BERT,
    "t5": _T5,
    "gpt_neo": _GPT_NEO,
    "gpt2": _GPT2,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _LLAMA),
    "vit": _VIT,
    "deit": _VIT,
}
# other spellings of a model_type, and of an activation
ALIASES = {"xlm-roberta": "roberta", "camembert": "roberta"}
ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new", "swish": "silu"}
# options without which a network cannot be built; the others have defaults
REQUIRED = ("vocab_size", "num_layers", "width", "num_heads", "max_length")
# options without a key in config.json: their values in all networks of the family
FIXED: Mapping[str, Mapping[str, object]] = {
    "bert": {"first_position": 0, "pooler": "tanh", "pooler_dropout": 0.0},
    "distilbert": {
        "first_position": 0, "pooler": "relu", "pooler_dropout": 0.0, "token_types": 0,
        "epsilon": 1e-12,
    },
    "roberta": {"pooler": "tanh"},
    "t5": {},
    "gpt_neo": {"scaled": False, "attention_bias": False},
    "gpt2": {"attention_bias": True},
    "llama": {"head_norm": False, "window": None, "dropout": 0.0},
    "mistral": {
        "head_norm": False, "attention_bias": False, "out_bias": False, "ffn_bias": False,
        "dropout": 0.0,
    },
    "qwen2": {
        "head_norm": False, "attention_bias": True, "out_bias": False, "ffn_bias": False,
        "dropout": 0.0,
    },
    "qwen3": {"head_norm": True, "ffn_bias": False, "dropout": 0.0},
    "vit": {"distilled": False},
    "deit": {"distilled": True},
}  # fmt: skip
ARCHITECTURES = {
    "bert": "BertForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "t5": "T5ForConditionalGeneration",
    "gpt_neo": "GPTNeoForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassificationWithTeacher",
}
