"""What bf16 buys on this CPU: `python benchmarks/precision.py`. Seconds of an update of either step, fp32 and bf16 in turn, and their ratio."""
import random
import statistics
import time

import torch

from expblip.checkpoints import Start
from expblip.config import resolve_precision
from expblip.documents import noted
from expblip.lm import lm_rows, pad_rows, qformer_rows
from expblip.step2 import trainable

def captions(n: int) -> list[str]:
    "Action captions, half by rule and half by the grammar, of about one length, as batches have them."
    dice = random.Random(0)
    texts = sorted((noted(kind, dice).text for _ in range(4 * n) for kind in ('rule', 'grammar')), key=len)
    return texts[len(texts) // 2:len(texts) // 2 + n]

def updates():
    "One update of step 1 and of step 2, as functions of the precision."
    start = Start(); first, second = start.step1(), start.captioner()
    pictures, tokens = torch.randn(32, 3, 96, 96), torch.randn(48, second.encoder.tokens, second.encoder.width)
    ids, mask = pad_rows(qformer_rows(start.tok, captions(48)), start.tok.pad_token_id)
    one = dict(image=tokens, ids=ids, mask=mask, group=torch.arange(48))
    two = dict(pixels=pictures, **dict(zip(('ids', 'mask'), pad_rows(lm_rows(start.tok, captions(32)), start.tok.pad_token_id))))
    everything = list(first.named_parameters())
    for name, net, named, batch in (('step 1, batch 48', first, everything, one), ('step 2, batch 32', second, trainable(second), two)):
        opt = torch.optim.AdamW([p for _, p in named], 1e-4)
        def update(bf16: bool, net=net, batch=batch, opt=opt):
            with torch.autocast('cpu', torch.bfloat16, enabled=bf16): loss = net(**batch)['loss']
            loss.backward(); opt.step(); opt.zero_grad()
        yield name, update

def seconds(do) -> float:
    "Wall seconds of one call."
    begin = time.perf_counter(); do()
    return time.perf_counter() - begin

if __name__ == '__main__':
    print(f'{torch.get_num_threads()} threads; auto means {resolve_precision("auto", "cpu")} here')
    for name, update in updates():
        for bf16 in (False, True): update(bf16)
        pairs = [[seconds(lambda u=update, b=bf16: u(b)) for bf16 in (False, True)] for _ in range(8)]
        fp32, bf16 = (statistics.median(column) for column in zip(*pairs))
        print(f'{name}: fp32 {fp32:.3f} s, bf16 {bf16:.3f} s, ratio {statistics.median(a / b for a, b in pairs):.2f}')
