"""Speed at full size, random weights, synthetic pictures: `python benchmarks/full_size.py --parts features step1 step2-2.7b --out result.json`.

Measured for each part, after a warm-up, as the median of three: samples and real tokens (no padding) a second, MFU, peak memory, the share of time
spent waiting for a batch, and apart from these the seconds of the first update, where compilation lies. The FLOP model behind MFU (flops.py) is held
against torch's counter in the same run. Each part is measured twice on the same weights and batches:

* ours: bf16 autocast, fused attention, captions padded up to a multiple of 16, scores only where there is a label, frozen weights stored in bf16,
  blocks compiled (`--compile`), bytes augmented on the device, fused AdamW on a GPU;
* plain: a faithful plain version of LAVIS's step, not LAVIS's own code: trained weights in fp32 under the same autocast, attention written out,
  captions padded to the longest allowed, scores at every position, a query pass for ITC and another pass for ITG, plain AdamW; with `--recompute`
  the blocks of a trained encoder are computed again in the backward pass (LAVIS's `use_grad_checkpoint`), here and in LAVIS's own modules;
* lavis, where `--lavis` names the python of LAVIS's environment (`make parity` makes one): its own modules, see lavis_step.py. Its captions
  are as long as allowed: it pads to that length anyway.
"""
import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flops
import numpy as np
import torch
import torch.fx.experimental._config as fx
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from expblip.encoders import HubEncoder
from expblip.images import evaluation_view, training_view
from expblip.io import write_json
from expblip.models import ENCODERS, LANGUAGE_MODELS, MODELS, ModelSize, build, known_shape
from expblip.qformer import QFormerConfig
from expblip.speed import arrive, blocks, compile_parts, padded, pinned, set_attention
from expblip.step1 import Step1, hard_negatives, itc_loss
from expblip.step2 import ExpressionCaptioner, trainable
from expblip.training import ahead, decay_groups

GOALS = {'features': (760, 950), 'step1-online-64': (465, 510), 'step1-cached-64': (600, 960), 'step2-6.7b-64': (95, 114), 'step2-6.7b-128': (54, 67),
         'step2-2.7b-128': (96, 120)}  # samples a second on one H200: good, ambitious
PARTS = ['features', 'step1-online-64', 'step1-cached-64', 'step2-2.7b-64', 'step2-2.7b-128', 'step2-6.7b-64', 'step2-6.7b-128',
         'generate-2.7b', 'generate-6.7b']
PEAKS = {'H100': 989e12, 'H200': 989e12}  # data sheets, bf16 without sparsity
TOKENIZER = SimpleNamespace(bos_token_id=2, pad_token_id=1, unk_token_id=3, convert_tokens_to_ids=lambda name: 5,  # ids stand for words
                            batch_decode=lambda rows, **_: [' '.join(map(str, r)) for r in rows.tolist()])
DEC = 4


def sizes(small: bool, lm: str) -> ModelSize:
    "ViT-g/14, BERT-base Q-Former and OPT; or a tiny model with the same parts."
    if not small: return MODELS['full'].but(lm=f'facebook/opt-{lm}')
    ENCODERS['tiny'] = dict(ENCODERS['eva_vit_g'], hidden_size=48, num_hidden_layers=3, num_attention_heads=2, intermediate_size=96, image_size=56)
    LANGUAGE_MODELS['tiny'] = dict(LANGUAGE_MODELS['facebook/opt-2.7b'], vocab_size=320, hidden_size=48, word_embed_proj_dim=48, ffn_dim=96,
                                   num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=256)
    return ModelSize('tiny', 'tiny', QFormerConfig(320, 48, 48, 2, 2, 96, queries=8, max_text=128, projection=16, gain=1.))


# ---------------------------------------------------------------- LAVIS's step, written plainly

def everywhere(logits: torch.Tensor, target: torch.Tensor, smoothing: float = 0.) -> torch.Tensor:
    "Next-word cross-entropy from scores at all positions; targets of -100 do not count."
    return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), target[:, 1:].flatten(), ignore_index=-100, label_smoothing=smoothing)


def plain_step1(m: Step1, image: torch.Tensor, ids, mask, group, draw) -> dict:
    "As Blip2Qformer.forward: query pass, text pass, three ITM passes as one, ITG pass with scores everywhere."
    image = m.ln_vision(image)
    texts = m.text_proj(m.qformer('text', ids=ids, text_mask=mask)[1][:, 0])
    features = m.image_features(m.qformer('query', image)[0]), F.normalize(texts, dim=-1)
    same = group[:, None] == group[None]
    itc, i2t, t2i = itc_loss(*features, m.temp, same, m.detach, m.identical_negatives)
    wrong_image, ok = hard_negatives(t2i, same, draw[:, 0])
    wrong_text, _ = hard_negatives(i2t, same, draw[:, 1])
    three = torch.cat([image, image[wrong_image], image]), torch.cat([ids, ids, ids[wrong_text]]), torch.cat([mask, mask, mask[wrong_text]])
    scores = m.itm_head(m.qformer('both', *three)[0]).mean(1)
    keep, right = torch.cat([torch.ones_like(ok), ok, ok]), torch.arange(3 * len(ids), device=ids.device) < len(ids)
    itm = F.cross_entropy(scores[keep].float(), right[keep].long())
    dec = ids.clone(); dec[:, 0] = m.dec_id
    itg = everywhere(m.qformer.logits(m.qformer('causal', image, dec, mask)[1]), ids.masked_fill(mask == 0, -100), .1)
    return dict(loss=itc + itm + itg)


def plain_step2(m: ExpressionCaptioner, pixels, ids, mask) -> dict:
    "As Blip2OPT.forward: targets at every position, -100 for the prefix and for padding."
    prefix = m.prefix(pixels)
    embeds = torch.cat([prefix.to(m.lm.dtype), m.lm.get_input_embeddings()(ids)], 1)
    seen = torch.cat([mask.new_ones(prefix.shape[:2]), mask], 1)
    target = torch.cat([ids.new_full(prefix.shape[:2], -100), ids.masked_fill(mask == 0, -100)], 1)
    return dict(loss=everywhere(m.lm(inputs_embeds=embeds, attention_mask=seen, use_cache=False).logits, target))


def recomputed(encoder: HubEncoder, on: bool) -> None:
    "Let the encoder's blocks forget their activations and compute them again in the backward pass; or no longer."
    for b in blocks(encoder):
        if not on: b.__dict__.pop('forward', None)
        else: b.forward = lambda *a, _f=b.forward, **k: checkpoint(_f, *a, use_reentrant=False, **k)


# ---------------------------------------------------------------- batches

def lengths(kind: str, n: int, longest: int) -> np.ndarray:
    "Tokens of n captions: all of the longest length, or as the paper's rule captions have them (1.35 tokens a word)."
    if kind == 'full': return np.full(n, longest)
    import random

    from expblip.documents import noted
    dice = random.Random(0)
    return np.array([min(longest, 2 + round(1.35 * len(noted('rule', dice).text.split()))) for _ in range(n)])


class Batches:
    "Synthetic batches, as the stages' makers give them: bytes, token rows, random numbers; `finish` does the rest on the device."
    def __init__(self, what: str, long: int, given: np.ndarray, encoder: HubEncoder, vocab: int, pad_to: int, batch: int):
        self.what, self.long, self.given, self.vocab = what, long, np.sort(given), vocab
        self.pad_to, self.batch, self.size = pad_to, batch, encoder.image_size
        side = encoder.image_size * 8 // 7
        self.store = np.random.default_rng(0).integers(0, 256, (2 * batch, side, side, 3), np.uint8)
        self.features = np.random.default_rng(1).normal(size=(batch, encoder.tokens, encoder.width)).astype('float16') if 'cached' in what else None

    def __call__(self, k: int) -> dict:
        g = np.random.default_rng((7, k))
        out: dict[str, Any] = {}
        if not self.what.startswith(('features', 'generate')):
            near = g.integers(max(1, len(self.given) - self.batch + 1))
            n = self.given[near:near + self.batch]  # sorted: neighbours are of about one length
            ids = g.integers(6, self.vocab, (self.batch, n.max()))
            mask = (np.arange(n.max()) < n[:, None]).astype(int)
            ids[:, 0] = TOKENIZER.bos_token_id
            text = dict(ids=torch.from_numpy(np.where(mask, ids, TOKENIZER.pad_token_id)), mask=torch.from_numpy(mask))
            out |= padded(text, self.pad_to, TOKENIZER.pad_token_id, self.long)
        if self.what.startswith('step1'):
            out |= dict(group=torch.arange(self.batch), draw=torch.from_numpy(g.random((self.batch, 2), np.float32)))
        if self.features is not None: return out | dict(image=torch.from_numpy(self.features))
        raw, u = self.store[g.integers(0, len(self.store), self.batch)], g.random((self.batch, 4), np.float32)
        return out | dict(raw=torch.from_numpy(raw), u=torch.from_numpy(u))

    def finish(self, batch: dict) -> dict:
        if 'raw' not in batch: return batch | dict(image=batch['image'].float())
        raw, u = batch.pop('raw'), batch.pop('u')
        return batch | dict(pixels=training_view(raw, self.size, u) if self.what.startswith('step') else evaluation_view(raw, self.size))


# ---------------------------------------------------------------- measuring

def wait_for(device: torch.device) -> None:
    if device.type == 'cuda': torch.cuda.synchronize()


def measure(update: Callable[[dict], Any], make: Batches, device: torch.device, seconds: float, warmup: int, least: int) -> dict:
    "Three runs of as many updates as fit; a batch is made in a thread meanwhile."
    end, rates, tokens, waits, total = time.monotonic() + seconds, [], [], 0., 0.
    stream = ahead(lambda k: pinned(make(k), device), range(10**6))
    def one() -> tuple[int, float]:
        begin = time.monotonic()
        batch = next(stream)[1]
        waited = time.monotonic() - begin
        real = int(batch['mask'].sum()) if 'mask' in batch else 0  # counted before it goes to the device
        said = update(arrive(batch, device, make))
        return real or (sum(len(t.split()) for t in said) if isinstance(said, list) else 0), waited
    try:
        wait_for(device); begin = time.monotonic(); one(); wait_for(device)
        first = time.monotonic() - begin
        for _ in range(warmup): one()
        wait_for(device)
        if device.type == 'cuda': torch.cuda.reset_peak_memory_stats()
        for run in range(3):
            begin, done, words = time.monotonic(), 0, 0
            while done < least or time.monotonic() < end - (2 - run) * (end - begin) / (3 - run):
                n, waited = one()
                done, words, waits = done + 1, words + n, waits + waited
                if done % least == 0: wait_for(device)  # so that the clock is that of the device
                if time.monotonic() > end: break
            wait_for(device)
            spent = time.monotonic() - begin
            total += spent
            rates.append(done * make.batch / spent); tokens.append(words / spent)
    finally: stream.close()
    rate = statistics.median(rates)
    gib = torch.cuda.max_memory_allocated() / 2**30 if device.type == 'cuda' else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return dict(samples_per_s=rate, spread=[min(rates), max(rates)], tokens_per_s=statistics.median(tokens), data_wait=waits / total,
                peak_memory_gib=gib, first_update_s=first, compile_s=max(0., first - make.batch / rate))


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    "FLOP a second of one large matrix product: what the device can do."
    n = 8192 if device.type == 'cuda' else 512
    a = torch.randn(n, n, device=device, dtype=dtype)
    for _ in range(3): a @ a
    best = 0.
    for _ in range(5):
        wait_for(device); begin = time.perf_counter()
        for _ in range(10): a @ a
        wait_for(device)
        best = max(best, 10 * 2 * n**3 / (time.perf_counter() - begin))
    return best


def modelled(part: str, captioner: ExpressionCaptioner, text: int, pool: int, new: int) -> float:
    "FLOP a sample, from flops.py."
    enc, c, lm = captioner.encoder, captioner.qformer.cfg, captioner.lm.config
    if part == 'features': return flops.features(enc)
    if part.startswith('generate'): return flops.generation(enc, c, lm, new)
    if part.startswith('step2'): return flops.step2(enc, c, lm, text)
    return flops.step1(c, text, enc.tokens, pool) + (flops.features(enc) if 'online' in part else 0)


def counted(part: str, size: ModelSize, text: int, pool: int, new: int) -> float | None:
    "FLOP a sample that torch counts in our own update, on the meta device with attention written out; None for generation (it reads its numbers)."
    if part.startswith('generate'): return None
    fx.meta_nonzero_assume_all_nonzero = True
    step1, captioner = build(size, 'meta', tok=TOKENIZER, dec=DEC)
    for m in (step1, captioner): set_attention(m, 'eager')
    def new_(*shape, dtype=torch.float32): return torch.empty(*shape, dtype=dtype, device='meta')
    side, long = captioner.encoder.image_size, dict(dtype=torch.long)
    words, pixels = dict(ids=new_(pool, text, **long), mask=new_(pool, text, **long)), new_(pool, 3, side, side)
    with FlopCounterMode(display=False) as counter:
        if part == 'features' or 'online' in part:
            with torch.no_grad(): image = captioner.encoder(pixels)
        else: image = new_(pool, captioner.encoder.tokens, captioner.encoder.width)
        if part.startswith('step1'): step1(image, **words, group=new_(pool, **long), draw=new_(pool, 2))['loss'].backward()
        if part.startswith('step2'):
            trainable(captioner)
            captioner(pixels, **words)['loss'].backward()
    fx.meta_nonzero_assume_all_nonzero = False
    return counter.get_total_flops() / pool


def run(part: str, side: str, step1: Step1, captioner: ExpressionCaptioner, opts: Any, device: torch.device) -> dict:
    "One part, one side: the speed and the loss before any update."
    ours, batch, bf16 = side == 'ours', opts.batch, opts.precision == 'bf16'
    text = int(part.rsplit('-', 1)[1]) if part[-1].isdigit() else 0
    text = min(text, opts.longest)
    for m in (step1, captioner): set_attention(m, 'sdpa' if ours else 'eager')
    compiled = compile_parts(captioner, opts.compile) if ours else []
    recomputed(captioner.encoder, opts.recompute and not ours and part.startswith('step2'))
    net: Any = step1 if part.startswith('step1') else captioner
    make = Batches(part, text, lengths(opts.lengths, 4096, text), captioner.encoder, min(step1.qformer.cfg.vocab, captioner.lm.config.vocab_size),
                   16 if ours else 10**6, batch)
    def autocast(): return torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    def forward(batch: dict) -> dict:
        if part.startswith('step1') and 'pixels' in batch:
            with torch.no_grad(): batch = {k: v for k, v in batch.items() if k != 'pixels'} | dict(image=captioner.encoder(batch['pixels']))
        if ours: return net(**batch)
        return (plain_step1 if part.startswith('step1') else plain_step2)(net, **batch)
    fact: dict[str, Any] = dict(part=part, side=side, batch=batch, tokens=text, compiled='+'.join(compiled) or 'none')
    if part == 'features' or part.startswith('generate'):
        captioner.eval()
        @torch.no_grad()
        def update(batch: dict) -> Any:
            with autocast():
                if part == 'features': return captioner.encoder(batch['pixels'])
                return captioner.generate(batch['pixels'], max_new_tokens=opts.new)
    else:
        named = trainable(captioner) if part.startswith('step2') else list(step1.named_parameters())
        if part.startswith('step1'): step1.requires_grad_(True); captioner.encoder.requires_grad_(False)
        net.eval()
        with torch.no_grad(), autocast(): fact['loss'] = forward(arrive(make(0), device, make))['loss'].item()  # no dropout
        net.train()
        # rate 0: all the work of an update, and the same weights for the other side
        opt = torch.optim.AdamW(decay_groups(named), 0., fused=ours and device.type == 'cuda')
        def update(batch: dict) -> Any:
            with autocast(): loss = forward(batch)['loss']
            loss.backward(); opt.step(); opt.zero_grad()
    fact |= measure(update, make, device, opts.seconds, opts.warmup, opts.least)
    recomputed(captioner.encoder, False)
    for p in [*step1.parameters(), *captioner.parameters()]: p.grad = None
    if ours:
        for m in captioner.modules(): m._compiled_call_impl = None
    return fact


def lavis(part: str, opts: Any, size: ModelSize, device: torch.device) -> dict:
    "The same part by LAVIS's own modules, in a process of its environment."
    v, q, lm = known_shape(size.encoder, ENCODERS), size.qformer, known_shape(size.lm, LANGUAGE_MODELS)
    text = min(int(part.rsplit('-', 1)[1]), opts.longest) if part[-1].isdigit() else 0
    said = dict(
        part=part, batch=opts.batch, tokens=text, new=opts.new, recompute=opts.recompute, seconds=opts.seconds, warmup=opts.warmup, least=opts.least,
        device=str(device), precision=opts.precision, threads=torch.get_num_threads(), queries=q.queries, projection=q.projection,
        bert_vocab=q.vocab, lm_vocab=lm['vocab_size'],
        vit=dict(img_size=v['image_size'], patch_size=v['patch_size'], embed_dim=v['hidden_size'], depth=v['num_hidden_layers'],
                 num_heads=v['num_attention_heads'], mlp_ratio=v['intermediate_size'] / v['hidden_size'], eps=v['layer_norm_eps']),
        bert=dict(hidden_size=q.hidden, num_hidden_layers=q.layers, num_attention_heads=q.heads, intermediate_size=q.ffn,
                  max_position_embeddings=q.max_text, hidden_dropout_prob=q.dropout, attention_probs_dropout_prob=q.dropout),
        opt={k: lm[k] for k in ('hidden_size', 'word_embed_proj_dim', 'ffn_dim', 'num_hidden_layers', 'num_attention_heads',
                                'max_position_embeddings', 'dropout', 'attention_dropout', 'activation_function')})
    env = {k: x for k, x in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run([opts.lavis, str(Path(__file__).with_name('lavis_step.py')), json.dumps(said)], capture_output=True, text=True, env=env)
    fact = dict(part=part, side='lavis', batch=opts.batch, tokens=text)
    if done.returncode: return fact | dict(error=' '.join(done.stderr.splitlines()[-1:]))
    return fact | json.loads(done.stdout.splitlines()[-1])


def facts(device: torch.device) -> dict:
    "Where and with what."
    def git(*args: str) -> str: return subprocess.run(['git', *args], cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    name = torch.cuda.get_device_name() if device.type == 'cuda' else f'CPU, {torch.get_num_threads()} threads'
    return dict(device=name, date=datetime.now(UTC).isoformat(timespec='seconds'),
                commit=git('rev-parse', '--short', 'HEAD'), changed=bool(git('status', '--porcelain', '-uno')),
                versions={p: version(p) for p in ('torch', 'transformers', 'accelerate', 'numpy')})


def table(results: list[dict]) -> str:
    "What to read: one line a part and side, with the goals on one H200 beside."
    lines = [f'{"part":16} {"side":6} {"samples/s":>10} {"spread":>17} {"tokens/s":>9} {"MFU":>6} {"GiB":>6} '
             f'{"wait":>6} {"compile":>8}  to plain  to LAVIS  goals (one H200)']
    peers = {(r['side'], r['part']): r['samples_per_s'] for r in results if 'error' not in r}
    for r in results:
        if 'error' in r: lines.append(f'{r["part"]:16} {r["side"]:6} {r["error"]}'); continue
        ratios = [f'{r["samples_per_s"] / peers[peer, r["part"]]:.2f}x' if r['side'] == 'ours' and (peer, r['part']) in peers else ''
                  for peer in ('plain', 'lavis')]
        goal = '{} and {}'.format(*GOALS[r['part']]) if r['part'] in GOALS and r['side'] == 'ours' else ''
        lines.append(f'{r["part"]:16} {r["side"]:6} {r["samples_per_s"]:10.2f} {r["spread"][0]:8.2f}-{r["spread"][1]:8.2f} {r["tokens_per_s"]:9.0f} '
                     f'{r["mfu"]:6.1%} {r["peak_memory_gib"]:6.1f} {r["data_wait"]:6.1%} '
                     f'{r["compile_s"]:7.1f}s {ratios[0]:>9} {ratios[1]:>9}  {goal}')
    return '\n'.join(lines)


def main(args: list[str] | None = None) -> dict:
    p = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    p.add_argument('--parts', nargs='+', default=['all'], help=f'beginnings of: {", ".join(PARTS)}')
    p.add_argument('--sides', nargs='+', default=['plain', 'ours'], choices=['plain', 'ours'])
    p.add_argument('--lavis', default='', help="python of LAVIS's environment: a third side, its own modules")
    p.add_argument('--recompute', action='store_true', help='plain, lavis: blocks of a trained encoder are computed again in the backward pass')
    p.add_argument('--small', action='store_true', help='tiny models: proves the program, says nothing about speed')
    p.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    p.add_argument('--precision', default=None, choices=['bf16', 'fp32'], help='default: bf16 on a GPU')
    p.add_argument('--batch', type=int, default=None, help='samples an update; default 64, or 4 with --small')
    p.add_argument('--lengths', default='full', choices=['full', 'rule'], help='captions: all of the longest length, or as rules write')
    p.add_argument('--compile', default=None, help='parts to compile, joined by +; default: encoder+qformer+lm on a GPU, none on a CPU')
    p.add_argument('--new', type=int, default=None, help='tokens to generate; default 64, or 4 with --small')
    p.add_argument('--seconds', type=float, default=None, help='time limit of one side of one part; default 40, or 1 with --small')
    p.add_argument('--out', type=Path, default=None, help='JSON file')
    o = p.parse_args(args)
    chosen = [x for x in PARTS if o.parts == ['all'] or any(x.startswith(y) for y in o.parts)]
    if not chosen: p.error(f'no part begins with {" or ".join(o.parts)}: there are {", ".join(PARTS)}')
    device = torch.device(o.device)
    o.precision = o.precision or ('bf16' if device.type == 'cuda' else 'fp32')
    o.compile = o.compile or ('encoder+qformer+lm' if device.type == 'cuda' else 'none')
    o.batch, o.new, o.seconds = o.batch or (4 if o.small else 64), o.new or (4 if o.small else 64), o.seconds or (1. if o.small else 40.)
    o.longest, o.warmup, o.least = (24, 1, 1) if o.small else (1024, 3, 3)
    dtype = torch.bfloat16 if o.precision == 'bf16' else torch.float32
    where = facts(device)
    sheet = next((v for k, v in PEAKS.items() if k in where['device']), None)
    said: dict[str, Any] = where | dict(small=o.small, precision=o.precision, lengths=o.lengths, recompute=o.recompute,
                                        matmul_flop_per_s=matmul_peak(device, dtype), data_sheet_flop_per_s=sheet, results=[])
    def finish(fact: dict, work: float, seen: float | None) -> None:
        if 'error' not in fact:
            speed = work * fact['samples_per_s']
            fact |= dict(flop_per_sample=work, flop_counted=seen, mfu=speed / said['matmul_flop_per_s'], tflop_per_s=speed / 1e12,
                         mfu_data_sheet=speed / said['data_sheet_flop_per_s'] if said['data_sheet_flop_per_s'] else None)
        said['results'].append(fact)
        print(json.dumps(fact), flush=True)
        if o.out: write_json(o.out, said)
    torch.manual_seed(0)
    built: tuple[str, Any, Any] = ('', None, None)
    for part in chosen:
        lm = '6.7b' if '6.7b' in part else '2.7b'
        size = sizes(o.small, lm)
        if built[0] != lm:
            built = ('', None, None); gc.collect()
            step1, captioner = build(size, str(device), tok=TOKENIZER, dec=DEC)
            captioner.lm.to(dtype)
            built = (lm, step1, captioner)
        _, step1, captioner = built
        text = min(int(part.rsplit('-', 1)[1]), o.longest) if part[-1].isdigit() else 0
        mean = round(lengths(o.lengths, 4096, text).mean()) if text else 0
        work, seen = modelled(part, captioner, mean, o.batch, o.new), counted(part, size, mean, o.batch, o.new)
        if o.lavis and 'cached' not in part: finish(lavis(part, o, size, device), work, seen)
        for side in [s for s in ('plain', 'ours') if s in o.sides]:
            frozen = part == 'features' or 'online' in part or part.startswith('generate')
            captioner.encoder.model.to(dtype if frozen else torch.float32)
            try: fact = run(part, side, step1, captioner, o, device)
            except torch.OutOfMemoryError: fact = dict(part=part, side=side, error='does not fit into memory: take a smaller --batch')
            gc.collect()
            if device.type == 'cuda': torch.cuda.empty_cache()
            finish(fact, work, seen)
    print(table(said['results']))
    return said


if __name__ == '__main__': main()
