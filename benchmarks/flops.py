"""Matrix-product work of the models that `full_size.py` times, by `expblip.estimate` (a multiply and an add are 2), held against torch's counter."""
from typing import Any

from expblip.encoders import HubEncoder
from expblip.estimate import Sizes, encoder_flops, language_flops, qformer_flops, stack_of, step1_flops
from expblip.estimate import flops as training_flops
from expblip.qformer import QFormerConfig


def _encoder(encoder: HubEncoder) -> Any: return stack_of(encoder.model.config.to_dict() | dict(model_type=encoder.model.config.model_type))


def step1(c: QFormerConfig, text: int, image: int, pool: int, shared: bool = True) -> float:
    "An update of step 1, one sample with `text` real tokens, image features given, `pool` samples to be told apart; all of it is trained."
    return 3 * sum(step1_flops(c, text, image, pool, shared))


def step2(encoder: HubEncoder, c: QFormerConfig, lm: Any, text: int) -> float:
    "An update of step 2, one sample with `text` real tokens: encoder and Q-Former are trained, the language model only passes gradients on."
    return training_flops(Sizes(_encoder(encoder), stack_of(lm.to_dict()), c), 2, text)


def features(encoder: HubEncoder) -> float:
    "A picture through the frozen encoder."
    patches, body = encoder_flops(_encoder(encoder))
    return patches + sum(body)


def generation(encoder: HubEncoder, c: QFormerConfig, lm: Any, new: int) -> float:
    "A caption of `new` tokens: picture, prefix, then one token at a time with the earlier ones remembered."
    (linear, attention), scores = language_flops(stack_of(lm.to_dict()), c.queries + new, new)
    return features(encoder) + qformer_flops(c, c.queries, 0, encoder.tokens) + linear + attention / 2 + scores
