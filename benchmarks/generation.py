"""Captions a second, beside Hugging Face's own generate with the same weights and the same text: `python benchmarks/generation.py`.

The model has the sizes of the CPU comparison with LAVIS: ViT 6 x 192 (112 px, patch 16), Q-Former 4 x 192 with 16 queries, OPT 6 x 192 with 50,272
words, float32. Its language model is first taught some rule captions, so that captions have lengths as in the paper and end by themselves; what
it says of a picture of noise has no meaning. Both speak greedily about the same pictures; texts must be equal, word for word. The peer is
`Blip2ForConditionalGeneration.generate`, one picture at a time (as LAVIS's and Hugging Face's examples do) and in batches; ours is
`ExpressionCaptioner.generate`. Ways take turns, round by round; a ratio is that of one round, and its median, least and largest are printed.
"""
import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch

from expblip.documents import noted
from expblip.encoders import build_encoder
from expblip.exchange import to_hf
from expblip.io import write_json
from expblip.lm import lm_rows, newline_id, pad_rows, small_opt, train_tokenizer
from expblip.qformer import QFormer, QFormerConfig
from expblip.step2 import ExpressionCaptioner

VIT = dict(model_type='blip_2_vision_model', hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6, image_size=112,
           patch_size=16, initializer_range=.02)
SMALL = VIT | dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32)


def captioner(small: bool, teach: int) -> ExpressionCaptioner:
    "Random weights; the language model has seen `teach` batches of rule captions behind prefixes of noise."
    dice = random.Random(0)
    texts = [noted('rule', dice).text for _ in range(600)]
    tok = train_tokenizer(texts, 800)
    torch.manual_seed(0)
    lm = small_opt(tok, 32, 2, 2) if small else small_opt(tok, 192, 6, 4)
    if not small: lm.resize_token_embeddings(50272)
    width, queries = (32, 4) if small else (192, 16)
    shape = QFormerConfig(len(tok), width, width, 2 if small else 4, 2 if small else 4, 4 * width, queries=queries, projection=16, gain=1.)
    model = ExpressionCaptioner(build_encoder(SMALL if small else VIT), QFormer(shape), lm, tok)
    lm.requires_grad_(True).train()
    opt = torch.optim.AdamW(lm.parameters(), 2e-3, fused=True)
    for k in range(teach):
        ids, mask = pad_rows(lm_rows(tok, [texts[(28 * k + i) % 600] for i in range(28)]), tok.pad_token_id)
        seen = torch.cat([torch.randn(28, queries, width), lm.get_input_embeddings()(ids)], 1)
        states = lm.base_model(inputs_embeds=seen, attention_mask=torch.cat([mask.new_ones(28, queries), mask], 1)).last_hidden_state
        loss = model_loss(lm, states[:, queries - 1:-1][mask.bool()], ids[mask.bool()])
        loss.backward(); opt.step(); opt.zero_grad()
    lm.requires_grad_(False)
    with torch.no_grad(): model.proj.weight.mul_(3)  # prefixes that differ from picture to picture
    return model.eval()


def model_loss(lm, states, target):
    from expblip.vocabulary import vocabulary_loss
    return vocabulary_loss(states, lm.get_output_embeddings().weight, target)[0] / len(target)


def ways(model: ExpressionCaptioner, pixels: torch.Tensor, new: int, batch: int) -> dict[str, Callable[[], list[str]]]:
    "Name -> captions of all pictures."
    hf, tok = to_hf(model)[0], model.tok
    def theirs(size):
        said = []
        for x in pixels.split(size):
            ids = torch.full((len(x), model.qformer.cfg.queries + 1), hf.config.image_token_index)
            ids[:, -1] = tok.bos_token_id
            out = hf.generate(x, ids, torch.ones_like(ids), max_new_tokens=new, do_sample=False, eos_token_id=newline_id(tok),
                              pad_token_id=tok.pad_token_id)
            said += [t.strip() for t in tok.batch_decode(out[:, ids.size(1):], skip_special_tokens=True)]
        return said
    def ours(size): return [t for x in pixels.split(size) for t in model.generate(x, max_new_tokens=new)]
    whole = len(pixels)
    return {'Hugging Face, one at a time': lambda: theirs(1), f'Hugging Face, batches of {batch}': lambda: theirs(batch),
            f'Hugging Face, one batch of {whole}': lambda: theirs(whole), 'ours, one at a time': lambda: ours(1),
            f'ours, batches of {batch}': lambda: ours(batch), f'ours, one batch of {whole}': lambda: ours(whole)}


def measure(all_ways: dict[str, Callable], rounds: int) -> tuple[dict[str, list[float]], list[str]]:
    "CPU seconds of each way in each round, and the text, which is the same for all."
    said = {name: way() for name, way in all_ways.items()}  # and warm
    first = next(iter(said))
    for name, texts in said.items():
        if unlike := [(a, b) for a, b in zip(said[first], texts, strict=True) if a != b]:
            raise SystemExit(f'{name} says something else than {first}: {unlike[0]}')
    spent: dict[str, list[float]] = {name: [] for name in all_ways}
    for _ in range(rounds):
        for name, way in all_ways.items():
            begin = time.process_time(); way(); spent[name].append(time.process_time() - begin)
    return spent, said[first]


def ratio(a: list[float], b: list[float]) -> list[float]:  # median, least, largest
    found = [x / y for x, y in zip(a, b)]
    return [statistics.median(found), min(found), max(found)]


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    p.add_argument('--small', action='store_true', help='a tiny model, to see that it works')
    p.add_argument('--pictures', type=int, default=96)
    p.add_argument('--batch', type=int, default=32)
    p.add_argument('--new', type=int, default=64, help='tokens at most')
    p.add_argument('--teach', type=int, default=150, help='updates of the language model before')
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--out', help='JSON file')
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    model = captioner(o.small, o.teach)
    side = model.encoder.image_size
    pixels = 3 * torch.randn(o.pictures, 3, 1, 1, generator=torch.Generator().manual_seed(1)) + torch.randn(o.pictures, 3, side, side)
    spent, said = measure(ways(model, pixels, o.new, o.batch), o.rounds)
    tokens = sorted(len(model.tok(t, add_special_tokens=False).input_ids) for t in said)
    print(f'{o.pictures} pictures, {len(set(said))} different captions of {tokens[0]} to {tokens[-1]} tokens, {statistics.mean(tokens):.0f} '
          f'on average; {o.threads} threads; the same text in every way')
    for name, seconds in spent.items(): print(f'{name:34} {o.pictures / statistics.median(seconds):8.1f} captions a CPU-second')
    names = list(spent)
    best = min(names[:3], key=lambda n: statistics.median(spent[n]))
    found = {f'{ours} against {theirs}': ratio(spent[theirs], spent[ours])
             for ours in names[3:] for theirs in dict.fromkeys((names[0], names[1], best))}
    for name, (middle, low, high) in found.items(): print(f'{name:76} {middle:6.2f} times ({low:.2f} to {high:.2f})')
    if o.out: write_json(o.out, dict(settings=vars(o), tokens=tokens, cpu_seconds=spent, ratios=found, torch=torch.__version__))


if __name__ == '__main__': main()
