"""Updates of step 1 and step 2 on CPU beside LAVIS: `python benchmarks/lavis_cpu.py --lavis PYTHON`.

Samples/s, ratios in paired rounds, and what each change adds.

LAVIS 1.0.2 runs unmodified in an environment of its own (PYTHON is that environment's interpreter), and both programs take turns on the same batches
with the same weights: ViT 6x192 frozen, Q-Former 4x192, 16 queries, 112 px, OPT 6x192 frozen, vocabularies of 30522 and 50272, batch 28, fp32,
dropout 0 on both sides. Captions are rule captions (words and signs as tokens; at most 29, so that LAVIS's limit of 32 cuts nothing).
"""
import argparse
import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
FULL = dict(image=112, width=192, vit=6, qformer=4, lm=6, heads=6, ffn=768, queries=16, batch=28,
            words=30522, vocab=50272, longest=32, projection=256)
SMALL = FULL | dict(image=32, width=24, vit=1, qformer=2, lm=1, heads=2, ffn=48, queries=4, batch=6, words=400, vocab=500, projection=16)
BOS, PAD, CLS, SEP, END, FIRST = 2, 1, 3, 4, 5, 6


class Words:
    "A tokenizer of whole words, the same for both programs: its cost is no part of the comparison."
    pad_token_id, bos_token_id, unk_token_id, cls_token_id, sep_token_id = PAD, BOS, None, CLS, SEP

    def __init__(self, size: int, known: list[str], start: list[int], end: list[int]):
        self.size, self.ids, self.start, self.end = size, {w: FIRST + i for i, w in enumerate(known)} | {'\n': END}, start, end

    def __len__(self): return self.size
    def add_special_tokens(self, more): pass
    def convert_tokens_to_ids(self, token): return END
    def row(self, text: str) -> list[int]: return [*self.start, *(self.ids[w] for w in re.findall(r'\w+|[^\w ]', text)), *self.end]

    def __call__(self, text, padding=False, max_length=None, add_special_tokens=True, **other):
        from transformers import BatchEncoding
        if not add_special_tokens: return BatchEncoding(dict(input_ids=self.row(text)[len(self.start):]))
        rows = [self.row(t) for t in ([text] if isinstance(text, str) else text)]
        width = max_length if padding == 'max_length' else max(map(len, rows))
        ids = torch.tensor([r + [PAD] * (width - len(r)) for r in rows])
        return BatchEncoding(dict(input_ids=ids, attention_mask=(ids != PAD).long()))


def tokenizers(c: dict, known: list[str]) -> tuple[Words, Words]: return Words(c['words'], known, [CLS], [SEP]), Words(c['vocab'], known, [BOS], [])


def lavis_models(c: dict, tok: tuple) -> dict:
    "LAVIS's own step-1 and step-2 model at these sizes, every weight drawn from one seed."
    sys.path.insert(0, str(ROOT / 'tools'))
    import lavis_parity as parity
    parity.bare_lavis()
    torch.distributed.init_process_group('gloo', init_method=f'file://{tempfile.mkdtemp()}/group', rank=0, world_size=1)
    parity.patch(dict(img_size=c['image'], patch_size=16, embed_dim=c['width'], depth=c['vit'], num_heads=c['heads'], mlp_ratio=4, eps=1e-6),
                 dict(hidden_size=c['width'], num_hidden_layers=c['qformer'], num_attention_heads=c['heads'], intermediate_size=c['ffn'],
                      max_position_embeddings=64, hidden_dropout_prob=0., attention_probs_dropout_prob=0.),
                 dict(hidden_size=c['width'], word_embed_proj_dim=c['width'], ffn_dim=c['ffn'], num_hidden_layers=c['lm'],
                      num_attention_heads=c['heads'], max_position_embeddings=128, dropout=0., attention_dropout=0.), tok, c['vocab'])
    from lavis.models.blip2_models.blip2_opt import Blip2OPT
    from lavis.models.blip2_models.blip2_qformer import Blip2Qformer
    both = dict(step1=Blip2Qformer(vit_precision='fp32', num_query_token=c['queries'], embed_dim=c['projection'], max_txt_len=c['longest']),
                step2=Blip2OPT(vit_precision='fp32', num_query_token=c['queries'], opt_model='small', prompt='', max_txt_len=c['longest']))
    for k, model in both.items(): parity.draw_weights(model, int(k[-1]))
    return both


class Stepper:
    "Forward, backward and AdamW of one model, with the clock."
    def __init__(self, parameters, **options):
        self.opt = torch.optim.AdamW(parameters, 1e-5, weight_decay=.05, **options)

    def __call__(self, losses) -> dict:
        wall, cpu = time.perf_counter(), time.process_time()
        said = losses(); said['loss'].backward(); self.opt.step(); self.opt.zero_grad()
        return dict(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu, loss=said['loss'].item())


def worker(folder: Path) -> None:
    "LAVIS's side of the pipe: a line `step1 3` asks for an update on batch 3."
    torch.set_num_threads(2)
    asked = json.loads((folder / 'setting.json').read_text())
    pipe, sys.stdout = sys.stdout, sys.stderr
    models = lavis_models(asked['setting'], tokenizers(asked['setting'], asked['known']))
    pictures = torch.load(folder / 'pictures.pt')
    for k, model in models.items(): torch.save(dict(model=model.state_dict(), epoch=0), folder / f'{k}.pth'); model.train()
    steppers = {k: Stepper([p for p in m.parameters() if p.requires_grad]) for k, m in models.items()}
    drawn, multinomial = [], torch.multinomial
    def recorded(*a, **k): out = multinomial(*a, **k); drawn.append(out.item()); return out
    torch.multinomial = recorded
    print('ready', file=pipe, flush=True)
    for line in sys.stdin:
        step, at = line.split()
        drawn.clear()
        batch = dict(image=pictures[int(at)], text_input=asked['batches'][int(at)])
        said = steppers[step](lambda m=models[step], b=batch: m(b))
        print(json.dumps(said | dict(drawn=drawn)), file=pipe, flush=True)


class Lavis:
    "LAVIS in its own process."
    def __init__(self, python: str, folder: Path):
        keep = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
        self.run = subprocess.Popen([python, __file__, '--worker', str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                    env=keep | dict(OMP_NUM_THREADS='2'))
        if self.run.stdout.readline() != 'ready\n': raise RuntimeError('LAVIS did not start: its message is above')

    def __call__(self, step: str, at: int) -> dict:
        print(step, at, file=self.run.stdin, flush=True)
        return json.loads(self.run.stdout.readline())

    def close(self) -> None: self.run.stdin.close(); self.run.wait()


def rule_captions(n: int) -> list[str]:
    "Rule captions as the pipeline writes them, at most 29 words and signs."
    from expblip.documents import noted
    dice = random.Random(0)
    return [' '.join(re.findall(r'\w+|[^\w ]', noted('rule', dice).text.lower())[:29]) for _ in range(n)]


class Ours:
    "Our side: the exported modules, with the pipeline's own batches."
    def __init__(self, c: dict, known: list[str], batches: list[list[str]], pictures: list, folder: Path):
        from transformers import OPTConfig, OPTForCausalLM

        from expblip.encoders import build_encoder
        from expblip.lm import pad_rows
        from expblip.qformer import QFormer, QFormerConfig
        from expblip.step1 import Step1
        from expblip.step2 import ExpressionCaptioner, trainable
        from expblip.weights import load_weights
        self.pad_rows, self.c, self.pictures, self.batches = pad_rows, c, pictures, batches
        self.tok = tokenizers(c, known)
        def encoder(): return build_encoder(dict(
            model_type='blip_2_vision_model', hidden_size=c['width'], intermediate_size=4 * c['width'], num_hidden_layers=c['vit'],
            num_attention_heads=c['heads'], image_size=c['image'], patch_size=16, layer_norm_eps=1e-6))
        def qformer(): return QFormer(QFormerConfig(c['words'], c['width'], c['width'], c['qformer'], c['heads'], c['ffn'], 2, c['queries'], 64,
                                                    c['projection'], 0., gain=1.))
        lm = OPTForCausalLM(OPTConfig(
            vocab_size=c['vocab'], hidden_size=c['width'], word_embed_proj_dim=c['width'], ffn_dim=c['ffn'], num_hidden_layers=c['lm'],
            num_attention_heads=c['heads'], max_position_embeddings=128, dropout=0., attention_dropout=0., pad_token_id=PAD, bos_token_id=BOS))
        self.encoder, self.one = encoder(), Step1(qformer(), BOS, identical_negatives=True)
        self.two = ExpressionCaptioner(encoder(), qformer(), lm, self.tok[1])
        if (folder / 'step1.pth').exists():
            load_weights(folder / 'step1.pth', self.one, self.encoder); load_weights(folder / 'step2.pth', self.two)
        named = trainable(self.two, train_encoder=False)
        self.one.train(); self.two.train(); self.encoder.requires_grad_(False); self.encoder.eval()
        self.steppers: dict = {}
        for fused in (True, False):
            self.steppers['step1', fused] = Stepper(self.one.parameters(), fused=fused)
            self.steppers['step2', fused] = Stepper([p for _, p in named], fused=fused)
        with torch.no_grad(): self.cached = [self.encoder(x) for x in pictures]

    def __call__(self, step: str, at: int, fused: bool = True, cached: bool = True, padded: bool = False) -> dict:
        texts = self.batches[at]
        rows = [self.tok[0].row(t) if step == 'step1' else [*self.tok[1].row(t), END] for t in texts]
        def losses():
            ids, mask = self.pad_rows(rows, PAD)
            if padded:
                more = (0, self.c['longest'] - ids.size(1))
                ids, mask = torch.nn.functional.pad(ids, more, value=PAD), torch.nn.functional.pad(mask, more)
            if step == 'step2': return self.two(self.pictures[at], ids, mask)
            if cached: image = self.cached[at]
            else:
                with torch.no_grad(): image = self.encoder(self.pictures[at])
            return self.one(image, ids, mask, torch.tensor([texts.index(t) for t in texts]))
        return self.steppers[step, fused](losses)


@contextlib.contextmanager
def negatives(drawn: list[int]):
    "Take the wrong pairs that LAVIS drew."
    import expblip.step1 as step1
    half, kept = iter((drawn[:len(drawn) // 2], drawn[len(drawn) // 2:])), step1.hard_negatives
    step1.hard_negatives = lambda sim, own, *rest: (torch.tensor(next(half)), torch.ones(len(sim), dtype=torch.bool))
    try: yield
    finally: step1.hard_negatives = kept


@contextlib.contextmanager
def replaced(*places):
    "Put something simpler in the place of (owner, name)."
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, other in places: setattr(owner, name, other)
    try: yield
    finally:
        for owner, name, before in kept: setattr(owner, name, before)


def plain_loss():
    "All scores at once, by torch's own cross-entropy."
    import expblip.step1 as step1
    import expblip.step2 as step2
    from torch.nn import functional as F
    def plain(states, weight, target, bias=None, smoothing=0.):
        z = F.linear(states, weight, bias)
        return F.cross_entropy(z, target, label_smoothing=smoothing, reduction='sum'), (z.argmax(-1) == target).sum()
    return replaced((step1, 'vocabulary_loss', plain), (step2, 'vocabulary_loss', plain))


def image_anew():
    "ITM computes keys and values of its three times 28 pictures itself, and every text's first layer three times."
    from expblip.step1 import Step1
    itm, match, raw = Step1.itm, Step1.match, []
    def noted(self, image, *rest): raw[:] = [image]; return itm(self, image, *rest)
    def anew(self, looked, ids, mask, pairs): return match(self, raw[0][pairs[:, 0]], ids[pairs[:, 1]], mask[pairs[:, 1]])
    return replaced((Step1, 'itm', noted), (Step1, 'match', anew))


def all_rows():
    "The last layer computes rows that nobody reads."
    from expblip.qformer import Layer
    forward = Layer.forward
    def every(self, x, queries, mask, image, weights=None, rows=None, of=None): return forward(self, x, queries, mask, image, weights, None, of)
    return replaced((Layer, 'forward', every))


def spread(pairs: list[tuple]) -> str:
    ratios = [a / b for a, b in pairs]
    return f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'


ABLATIONS = dict(step1={'features of the frozen encoder computed anew': dict(cached=False), 'padded to 32 tokens': dict(padded=True),
                        'AdamW not fused': dict(fused=False), 'image keys and values of ITM computed anew': image_anew,
                        'all rows of the last layer': all_rows,
                        'plain loss over the vocabulary': plain_loss},
                 step2={'padded to 32 tokens': dict(padded=True), 'AdamW not fused': dict(fused=False), 'plain loss over the vocabulary': plain_loss})


def main(python: str | None, small: bool, rounds: int) -> dict:
    c = SMALL if small else FULL
    torch.set_num_threads(2)
    from expblip.training import batch_order
    texts = rule_captions(8 * c['batch'])
    known = sorted({w for t in texts for w in t.split()})
    import numpy as np
    order = list(batch_order(np.array([len(t.split()) for t in texts]), c['batch'], 8, 0))
    batches = [[texts[i] for i in b] for b in order]
    g = torch.Generator().manual_seed(0)
    pictures = [torch.randn(c['batch'], 3, c['image'], c['image'], generator=g) for _ in batches]
    found: dict = dict(setting=c, date=time.strftime('%Y-%m-%d'), torch=torch.__version__, load=os.getloadavg()[0], threads=2)
    with tempfile.TemporaryDirectory() as d:
        folder = Path(d)
        (folder / 'setting.json').write_text(json.dumps(dict(setting=c, known=known, batches=batches)))
        torch.save(pictures, folder / 'pictures.pt')
        lavis = Lavis(python, folder) if python else None
        try:
            ours = Ours(c, known, batches, pictures, folder)
            if lavis:
                for step in ('step1', 'step2'):  # the same losses on the same batch, before any update
                    theirs = lavis(step, 0)
                    with negatives(theirs['drawn']) if step == 'step1' else contextlib.nullcontext(): mine = ours(step, 0)
                    found[f'{step} first loss'] = [mine['loss'], theirs['loss']]
                    if abs(mine['loss'] - theirs['loss']) > 1e-4: raise SystemExit(f'{step}: losses {mine["loss"]} and LAVIS {theirs["loss"]} differ')
                times = {s: [] for s in ('step1', 'step2')}
                for r in range(rounds + 1):
                    for step in times:
                        a, b = (lavis(step, r % 8), ours(step, r % 8)) if r % 2 else (ours(step, r % 8), lavis(step, r % 8))[::-1]
                        if r: times[step].append((a, b))
                def added(p, q): return tuple({k: x[k] + y[k] for k in ('wall', 'cpu')} for x, y in zip(p, q))
                times['sum'] = [added(p, q) for p, q in zip(times['step1'], times['step2'])]
                for step, pairs in times.items():
                    rate = [c['batch'] / statistics.median(p[i]['wall'] for p in pairs) for i in (0, 1)]
                    found[step] = dict(lavis=round(rate[0], 1), ours=round(rate[1], 1), rounds=len(pairs),
                                       **{k: spread([(p[0][k], p[1][k]) for p in pairs]) for k in ('wall', 'cpu')})
                    print(step, found[step], flush=True)
            for step, off in ABLATIONS.items():
                for name, change in off.items():
                    pairs = []
                    for r in range(rounds + 1):
                        with change() if callable(change) else contextlib.nullcontext():
                            without = ours(step, r % 8, **({} if callable(change) else change))
                        pairs.append((without, ours(step, r % 8)))
                    found[f'{step} without: {name}'] = {k: spread([(a[k], b[k]) for a, b in pairs[1:]]) for k in ('wall', 'cpu')}
                    print(step, name, found[f'{step} without: {name}'], flush=True)
        finally:
            if lavis: lavis.close()
    return found


if __name__ == '__main__':
    if '--worker' in sys.argv: worker(Path(sys.argv[-1]))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument('--lavis', help="interpreter of LAVIS's environment; without it only ours is measured")
        parser.add_argument('--small', action='store_true', help='tiny sizes: seconds')
        parser.add_argument('--rounds', type=int, default=12)
        parser.add_argument('--out', help='JSON file for the result')
        given = parser.parse_args()
        result = main(given.lavis, given.small, given.rounds)
        if given.out: Path(given.out).write_text(json.dumps(result, indent=1) + '\n')
