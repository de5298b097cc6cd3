"""Speed of LAVIS's own modules; `full_size.py --lavis` runs this in the environment of requirements-lavis.txt.

`Blip2Qformer` and `Blip2OPT` of salesforce-lavis 1.0.2, unmodified: their own __init__, forward and generate, with random weights of our sizes
(tools/lavis_parity.py puts local parts where LAVIS would fetch). Frozen parts are stored in half precision on a GPU, as LAVIS does; trained
parts are fp32 under autocast; the batch is made beforehand, the optimizer is a plain AdamW, and no loss scaler is used: all in LAVIS's favour.
The last line printed is one JSON object.
"""
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))
import lavis_parity as parity


def build(o: dict):
    "The model of a part, as LAVIS builds it."
    folder = Path(tempfile.mkdtemp())
    tokenizers = (parity.text_tokenizer(folder), parity.lm_tokenizer(folder))
    class Long(type(tokenizers[0])):  # as many words as the real one, with [DEC]
        def __len__(self): return o['bert_vocab'] - ('[DEC]' not in self.added_tokens_encoder)
    tokenizers[0].__class__ = Long
    parity.patch(o['vit'], o['bert'], o['opt'], tokenizers, o['lm_vocab'])
    from lavis.models.blip2_models.blip2_opt import Blip2OPT
    from lavis.models.blip2_models.blip2_qformer import Blip2Qformer
    same = dict(num_query_token=o['queries'], vit_precision='fp32')
    if o['part'].startswith(('step2', 'generate')):
        model = Blip2OPT(freeze_vit=o['part'].startswith('generate'), opt_model='local', max_txt_len=o['tokens'] or 32, **same)
        model.visual_encoder.use_checkpoint = o['recompute'] and not o['part'].startswith('generate')
        if o['half']: model.opt_model.to(o['half'])
    else: model = Blip2Qformer(embed_dim=o['projection'], max_txt_len=o['tokens'] or 32, **same)
    if o['half'] and not o['part'].startswith('step2'): model.visual_encoder.to(o['half'])
    return model


def main(o: dict) -> None:
    torch.distributed.init_process_group('gloo', init_method=f'file://{tempfile.mkdtemp()}/group', rank=0, world_size=1)
    parity.bare_lavis()
    device, o['half'] = torch.device(o['device']), torch.bfloat16 if o['precision'] == 'bf16' else None
    torch.set_num_threads(o['threads'])
    with device: model = build(o)
    model.to(device)
    side, words = o['vit']['img_size'], parity.TEXTS[1].split()
    longest = o['tokens'] or 2
    caption = ' '.join(words[k % len(words)] for k in range(longest))
    batch = dict(image=torch.randn(o['batch'], 3, side, side, device=device), text_input=[caption] * o['batch'])
    def autocast(): return torch.autocast(device.type, torch.bfloat16, enabled=o['precision'] == 'bf16')
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.)
    @torch.no_grad()
    def speak():
        with autocast():
            if o['part'] == 'features': return model.visual_encoder(batch['image'])
            return model.generate(batch, num_beams=1, max_length=o['new'], min_length=o['new'])
    def learn():
        with autocast(): loss = model(batch)['loss']
        loss.backward(); opt.step(); opt.zero_grad()
    update = learn if o['part'].startswith('step') else speak
    model.train(update is learn)
    def wait():
        if device.type == 'cuda': torch.cuda.synchronize()
    wait(); begin = time.monotonic(); update(); wait()
    first = time.monotonic() - begin
    for _ in range(o['warmup']): update()
    wait()
    if device.type == 'cuda': torch.cuda.reset_peak_memory_stats()
    rates = []
    for _ in range(3):
        begin, done = time.monotonic(), 0
        while done < o['least'] or time.monotonic() - begin < o['seconds'] / 3:
            update(); wait(); done += 1
        rates.append(done * o['batch'] / (time.monotonic() - begin))
    import resource

    import transformers
    gib = torch.cuda.max_memory_allocated() / 2**30 if device.type == 'cuda' else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rate = statistics.median(rates)
    tokens = o['new'] if o['part'].startswith('generate') else o['tokens']
    print(json.dumps(dict(samples_per_s=rate, spread=[min(rates), max(rates)], tokens_per_s=rate * tokens,
                          data_wait=0., peak_memory_gib=gib, first_update_s=first, compile_s=max(0., first - o['batch'] / rate), compiled='none',
                          versions=dict(torch=torch.__version__, transformers=transformers.__version__))))


if __name__ == '__main__': main(json.loads(sys.argv[1]))
