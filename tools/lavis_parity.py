"""Reference numbers from LAVIS's own modules, for tests/test_lavis.py.   usage: python tools/lavis_parity.py [folder, default tests]

Run it in the environment of requirements-lavis.txt (`make parity` does). `Blip2Qformer` and `Blip2OPT` of salesforce-lavis 1.0.2 run unmodified:
their own __init__, forward and generate. Replaced are the four calls that would fetch something (two tokenizers, BERT's and OPT's weights, EVA-CLIP's
file), and every weight is drawn anew from one seed, so that no signal is drowned by an initialisation. Dropout is 0, all in float32, one thread.
Written: lavis_parity.safetensors (weights, inputs, features, gradients) and lavis_parity.json (losses, tokens, sizes, names at full size).
"""
import importlib.util
import json
import re
import sys
import tempfile
import types
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

SEED, QUERIES, PROJECTION, LONGEST = 5, 4, 12, 16
VIT = dict(img_size=42, patch_size=14, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2, eps=1e-6)
BERT = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, max_position_embeddings=LONGEST,
            hidden_dropout_prob=0., attention_probs_dropout_prob=0.)
OPT = dict(hidden_size=24, word_embed_proj_dim=24, ffn_dim=48, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=48, dropout=0.,
           attention_dropout=0., activation_function='relu')
TEXTS = ['the face shows happiness', 'it raises cheek and pulls lip corner', 'the face shows happiness', 'it drops jaw']  # one caption twice
FULL = dict(vit=dict(img_size=224, patch_size=14, embed_dim=1408, depth=39, num_heads=16, mlp_ratio=4.3637, eps=1e-6), bert={},
            opt={'facebook/opt-2.7b': dict(hidden_size=2560, word_embed_proj_dim=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32),
                 'facebook/opt-6.7b': dict(hidden_size=4096, word_embed_proj_dim=4096, ffn_dim=16384, num_hidden_layers=32, num_attention_heads=32)})


def bare_lavis() -> None:
    "Only BLIP-2's modules: `import lavis` would import every model and data set, and the packages that those need."
    where = Path(importlib.util.find_spec('lavis').submodule_search_locations[0])
    for name in ('lavis', 'lavis.models'):
        module = types.ModuleType(name)
        module.__path__ = [str(where.joinpath(*name.split('.')[1:]))]
        sys.modules[name] = module
    from lavis.models.base_model import BaseModel
    sys.modules['lavis.models'].BaseModel = BaseModel  # what its registry asks for


def text_tokenizer(folder: Path):
    "BERT's tokenizer with a small vocabulary."
    from transformers import BertTokenizer
    words = sorted({w for t in TEXTS for w in t.split()})
    (folder / 'vocab.txt').write_text('\n'.join(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *words]))
    return BertTokenizer(str(folder / 'vocab.txt'))


def lm_tokenizer(folder: Path):
    "OPT's tokenizer with a small vocabulary: bytes, no merges."
    from transformers import GPT2Tokenizer
    from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode
    tokens = ['<s>', '<pad>', '</s>', '<unk>', *bytes_to_unicode().values()]
    (folder / 'vocab.json').write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / 'merges.txt').write_text('#version: 0.2\n')
    return GPT2Tokenizer(str(folder / 'vocab.json'), str(folder / 'merges.txt'), unk_token='<unk>', bos_token='</s>', eos_token='</s>',
                         pad_token='<pad>', add_bos_token=True)


def patch(vit: dict, bert: dict, opt: dict, tokenizers: tuple, vocab: int) -> None:
    "Put local parts where LAVIS would fetch."
    import lavis.models.blip2_models.blip2 as base
    import lavis.models.blip2_models.blip2_opt as step2
    from lavis.models.eva_vit import VisionTransformer
    shape = {k: v for k, v in vit.items() if k != 'eps'}
    norm = partial(torch.nn.LayerNorm, eps=vit['eps'])
    base.create_eva_vit_g = lambda *a, **k: VisionTransformer(**shape, use_mean_pooling=False, qkv_bias=True, norm_layer=norm)
    base.BertTokenizer = types.SimpleNamespace(from_pretrained=lambda *a, **k: tokenizers[0])
    base.BertConfig.from_pretrained = classmethod(lambda cls, *a, **k: cls(**bert))
    base.BertLMHeadModel.from_pretrained = classmethod(lambda cls, name, config: cls(config))
    step2.AutoTokenizer = types.SimpleNamespace(from_pretrained=lambda *a, **k: tokenizers[1])
    step2.OPTForCausalLM.from_pretrained = classmethod(lambda cls, *a, **k: cls(step2.OPTConfig(vocab_size=vocab, **opt)))


def draw_weights(model: torch.nn.Module, seed: int) -> None:
    "Every weight from one seed, at a size that lets the signal through."
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if name == 'temp': continue
        noise = torch.randn(p.shape, generator=g)
        norm = re.search(r'(norm\d?|LayerNorm|ln_vision|layer_norm)\.weight$', name)
        if norm: value = 1 + .1 * noise
        elif p.dim() > 1: value = noise * (.5 if 'embed' in name or 'token' in name else p[0].numel()**-.5)
        else: value = .1 * noise
        p.data.copy_(value)


def names_at_full_size() -> dict:
    "LAVIS's own names and shapes of the real models, built without content: name with # for numbers -> [shape, how many]."
    from lavis.models.blip2_models.blip2_opt import Blip2OPT
    from lavis.models.blip2_models.blip2_qformer import Blip2Qformer
    linspace = torch.linspace
    torch.linspace = lambda *a, **k: linspace(*a, **{**k, 'device': 'cpu'})  # its values are read while the model is built
    def table(model):
        out: dict = {}
        for key, value in model.state_dict().items():
            row = out.setdefault(f'{re.sub(r"[0-9]+", "#", key)} {list(value.shape)}', [])
            row += [int(n) for n in re.findall(r'\.(\d+)\.', key)[:1]]
        return {k: sorted(v) for k, v in out.items()}
    found = {}
    with tempfile.TemporaryDirectory() as d, torch.device('meta'):
        tokenizers = (text_tokenizer(Path(d)), lm_tokenizer(Path(d)))
        class Long(type(tokenizers[0])):  # as many words as BERT's, with [DEC]
            def __len__(self): return 30523
        tokenizers[0].__class__ = Long
        for name, opt in FULL['opt'].items():
            patch(FULL['vit'], FULL['bert'], opt, tokenizers, 50272)
            found[name] = table(Blip2OPT(vit_precision='fp32', freeze_vit=False, opt_model=name))
        found['step 1'] = table(Blip2Qformer(vit_precision='fp32'))
    torch.linspace = linspace
    return found


def grads(model: torch.nn.Module) -> dict:
    return {k: p.grad for k, p in model.named_parameters() if p.grad is not None}


def step1(tensors: dict, facts: dict, image: torch.Tensor) -> dict:
    "ITC, ITM and ITG: features, losses, drawn negatives, gradients of the sum and of each loss."
    from lavis.models.blip2_models.blip2_qformer import Blip2Qformer
    model = Blip2Qformer(vit_precision='fp32', num_query_token=QUERIES, embed_dim=PROJECTION, max_txt_len=LONGEST)
    draw_weights(model, SEED)
    text = model.tokenizer(TEXTS, padding='max_length', truncation=True, max_length=LONGEST, return_tensors='pt')
    drawn, multinomial = [], torch.multinomial
    def recorded(*a, **k):
        out = multinomial(*a, **k); drawn.append(out.item()); return out
    torch.multinomial = recorded
    torch.manual_seed(SEED)
    losses = model(dict(image=image, text_input=TEXTS))
    torch.multinomial = multinomial
    parts = ('query_tokens', 'temp', 'ln_vision.weight', 'itm_head.weight', 'vision_proj.weight', 'text_proj.weight',
             'Qformer.bert.embeddings.word_embeddings.weight', 'Qformer.bert.encoder.layer.0.crossattention.self.key.weight',
             'Qformer.cls.predictions.transform.dense.weight')
    own = dict(model.named_parameters())
    for loss in ('loss_itc', 'loss_itm', 'loss_lm'):
        for name, g in zip(parts, torch.autograd.grad(getattr(losses, loss), [own[p] for p in parts], retain_graph=True, allow_unused=True)):
            if g is not None: tensors[f'grad {loss} {name}'] = g
    losses.loss.backward()
    tensors |= {f'grad step1 {k}': v for k, v in grads(model).items()}
    model.eval()
    with torch.no_grad():
        queries, embeds = model.forward_image(image)
        tensors |= dict(step1_vit=model.visual_encoder(image), step1_ln=embeds, step1_queries=queries, step1_text=model.forward_text(text),
                        step1_itm=model.compute_itm(embeds, text.input_ids, text.attention_mask))
    tensors |= dict(image=image, text_ids=text.input_ids, text_mask=text.attention_mask)
    said, generate = [], model.Qformer.generate
    def written(*a, **k):
        out = generate(*a, **k); said.append(out[:, 1:].tolist()); return out
    model.Qformer.generate = written
    places, words = (getattr(model.Qformer.bert.embeddings, f'{x}_embeddings').weight.data for x in ('position', 'word'))
    places *= 64; words /= 8  # positions that matter: varied words (powers of two are exactly undone)
    for beams in (1, 3): model.generate(dict(image=image), num_beams=beams, max_length=10, min_length=4)
    places /= 64; words *= 8
    n = len(TEXTS)
    facts['step1'] = dict(itc=losses.loss_itc.item(), itm=losses.loss_itm.item(), itg=losses.loss_lm.item(), loss=losses.loss.item(),
                          greedy=said[0], beam=said[1], sep=model.tokenizer.sep_token_id, pad=model.tokenizer.pad_token_id,
                          wrong_image=drawn[:n], wrong_text=drawn[n:], dec=model.tokenizer.bos_token_id, vocab=len(model.tokenizer))
    return model.state_dict()


def step2(tensors: dict, facts: dict, image: torch.Tensor) -> dict:
    "Language-model loss, its gradients (the image encoder's too), and generated tokens."
    from lavis.models.blip2_models.blip2_opt import Blip2OPT
    model = Blip2OPT(vit_precision='fp32', freeze_vit=False, num_query_token=QUERIES, opt_model='small', prompt='', max_txt_len=48)
    draw_weights(model, SEED + 1)
    tok = model.opt_tokenizer
    decoder = model.opt_model.model.decoder  # positions that matter and a likelier newline: varied words, and some captions end before the limit
    decoder.embed_positions.weight.data *= 4
    decoder.embed_tokens.weight.data[model.eos_token_id] *= 2.5
    loss = model(dict(image=image, text_input=TEXTS))['loss']
    loss.backward()
    tensors |= {f'grad step2 {k}': v for k, v in grads(model).items()}
    rows = tok([t + '\n' for t in TEXTS], return_tensors='pt', padding='longest')
    tensors |= dict(lm_ids=rows.input_ids, lm_mask=rows.attention_mask)
    said, generate = [], model.opt_model.generate
    def recorded(*a, **k):
        out = generate(*a, **k); said.append(out); return out
    model.opt_model.generate = recorded
    model.eval()
    with torch.no_grad():
        query = model.query_tokens.expand(len(image), -1, -1)
        embeds = model.ln_vision(model.visual_encoder(image))
        mask = torch.ones(embeds.shape[:-1], dtype=torch.long)
        tensors['step2_queries'] = model.Qformer.bert(query_embeds=query, encoder_hidden_states=embeds, encoder_attention_mask=mask,
                                                      return_dict=True).last_hidden_state
    for beams, penalty in ((1, 1.), (5, 1.), (5, 0.)): model.generate(dict(image=image), num_beams=beams, max_length=20, length_penalty=penalty)
    facts['step2'] = dict(loss=loss.item(), greedy=said[0][:, 1:].tolist(), beam=said[1][:, 1:].tolist(), beam_sum=said[2][:, 1:].tolist(),
                         newline=model.eos_token_id, vocab=len(tok),
                          bos=tok.bos_token_id, pad=tok.pad_token_id)
    return {k: v for k, v in model.state_dict().items()}


def schedule() -> list:
    "Learning rates of LAVIS's own schedule, as its runner asks for them: [update, rate], for 100 updates an epoch."
    from lavis.common.optims import LinearWarmupCosineLRScheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.)
    plan = LinearWarmupCosineLRScheduler(optimizer, max_epoch=5, min_lr=1e-5, init_lr=1e-4, warmup_steps=160, warmup_start_lr=1e-6)
    rates = []
    for update in (0, 1, 50, 99, 100, 199, 250, 499):
        plan.step(*divmod(update, 100)); rates.append([update, optimizer.param_groups[0]['lr']])
    return rates


def main(folder: Path) -> None:
    import logging

    import transformers
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    bare_lavis()
    torch.distributed.init_process_group('gloo', init_method=f'file://{tempfile.mkdtemp()}/group', rank=0, world_size=1)
    image = torch.randn(len(TEXTS), 3, VIT['img_size'], VIT['img_size'], generator=torch.Generator().manual_seed(SEED))
    tensors: dict = {}
    made = dict(lavis='1.0.2', torch=torch.__version__.split('+')[0], transformers=transformers.__version__)
    facts: dict = dict(made_with=made, vit=VIT, bert=BERT, opt=OPT,
                       queries=QUERIES, projection=PROJECTION, texts=TEXTS)
    with tempfile.TemporaryDirectory() as d:
        tokenizers = (text_tokenizer(Path(d)), lm_tokenizer(Path(d)))
        patch(VIT, BERT, OPT, tokenizers, len(tokenizers[1]))
        for name, run in (('step1', step1), ('step2', step2)):
            tensors |= {f'{name}/{k}': v for k, v in run(tensors, facts, image).items()}
    facts['schedule'], facts['names'] = schedule(), names_at_full_size()
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, str(folder / 'lavis_parity.safetensors'))
    (folder / 'lavis_parity.json').write_text(json.dumps(facts, indent=1) + '\n')
    print({k: v for k, v in facts['step1'].items() if isinstance(v, float)}, facts['step2']['loss'])


if __name__ == '__main__': main(Path(sys.argv[1] if len(sys.argv) > 1 else 'tests'))
