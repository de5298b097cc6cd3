"""Matrix-product work of the models, from their sizes alone (a multiply and an add are 2). `full_size.py` holds it against torch's counter."""
from typing import Any

from expblip.encoders import HubEncoder
from expblip.estimate import qformer_flops, step1_flops
from expblip.qformer import QFormerConfig

Work = tuple[float, float]  # FLOP of linear layers (weights), FLOP of products of activations (attention)


def block(n: int, width: int, inner: int) -> Work:
    "One transformer block over n tokens: query, key, value, output, two feed-forward layers, attention."
    return 2. * n * (4 * width**2 + 2 * width * inner), 4. * n * n * width


def vision(encoder: HubEncoder) -> tuple[float, Work]:
    "A ViT, forward, one picture: FLOP of the patch embedding (no gradient goes on to the pixels), and of the blocks."
    c: Any = encoder.model.config
    w, inner = c.hidden_size, c.intermediate_size
    depth, attention = block(encoder.tokens, w, inner)
    return 2. * (encoder.image_size // c.patch_size)**2 * 3 * c.patch_size**2 * w, (depth * c.num_hidden_layers, attention * c.num_hidden_layers)


def step1(c: QFormerConfig, text: int, image: int, pool: int, shared: bool = True) -> float:
    "An update of step 1, one sample with `text` real tokens, image features given, `pool` samples to be told apart; all of it is trained."
    return 3 * sum(step1_flops(c, text, image, pool, shared))


def language(c: Any, tokens: int, labels: int) -> tuple[Work, float]:
    "A causal language model (OPT), forward: its blocks over so many tokens, and the scores of so many labels."
    linear, attention = block(tokens, c.hidden_size, c.ffn_dim)
    return (linear * c.num_hidden_layers, attention * c.num_hidden_layers), 2. * labels * c.hidden_size * c.vocab_size


def step2(encoder: HubEncoder, c: QFormerConfig, lm: Any, text: int) -> float:
    "An update of step 2, one sample with `text` real tokens: encoder and Q-Former are trained, the language model only passes gradients on."
    patches, body = vision(encoder)
    (linear, attention), scores = language(lm, c.queries + text, text)
    trained = sum(body) + qformer_flops(c, c.queries, 0, encoder.tokens) + 2. * c.queries * c.hidden * lm.hidden_size
    return 2 * patches + 3 * trained + 2 * (linear + scores) + 3 * attention


def features(encoder: HubEncoder) -> float:
    "A picture through the frozen encoder."
    patches, body = vision(encoder)
    return patches + sum(body)


def generation(encoder: HubEncoder, c: QFormerConfig, lm: Any, new: int) -> float:
    "A caption of `new` tokens: picture, prefix, then one token at a time with the earlier ones remembered."
    (linear, attention), _ = language(lm, c.queries + new, 0)
    return features(encoder) + qformer_flops(c, c.queries, 0, encoder.tokens) + linear + attention / 2 + 2. * new * lm.hidden_size * lm.vocab_size
