"""Folders of random weights at full size, for the stage notebooks: `python benchmarks/random_parts.py FOLDER [--lm 2.7b|6.7b|small]`.

Writes FOLDER/opt (a language model of OPT's shape in bf16, with a small tokenizer whose other words are never used) and FOLDER/bert (a tokenizer
with as many words as BERT's), and prints the knobs that make the pipeline begin from them. What such a model says has no meaning: only time and
memory are measured with it, by the stages themselves.
"""
import argparse
import shlex
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BertTokenizerFast

from expblip.documents import noted
from expblip.lm import newline_id, train_tokenizer
from expblip.models import LANGUAGE_MODELS


def opt_folder(folder: Path, name: str) -> None:
    "An OPT with random weights and a tokenizer of rule captions."
    import random
    dice = random.Random(0)
    tok = train_tokenizer([noted('rule', dice).text for _ in range(500)], 1000)
    shape = dict(LANGUAGE_MODELS['facebook/opt-6.7b' if name == 'small' else f'facebook/opt-{name}'])
    if name == 'small':
        shape |= dict(vocab_size=1200, hidden_size=64, word_embed_proj_dim=64, ffn_dim=128, num_hidden_layers=2, num_attention_heads=2)
    shape |= dict(pad_token_id=tok.pad_token_id, bos_token_id=tok.bos_token_id, eos_token_id=newline_id(tok))
    with torch.device('cuda' if torch.cuda.is_available() else 'cpu'):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tok.save_pretrained(folder)


def bert_folder(folder: Path, words: int = 30522) -> None:
    "A tokenizer of single letters, filled up to BERT's number of words."
    letters = [chr(c) for c in range(97, 123)]
    names = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *letters, *('##' + x for x in letters), ',', '.']
    names += [f'[unused{k}]' for k in range(words - len(names))]
    BertTokenizerFast(vocab={w: i for i, w in enumerate(names)}).save_pretrained(folder)


def knobs(folder: Path, updates: int) -> list[str]:
    "What to give the pipeline: few pictures, a few updates, everything else as the scale `full` has it."
    small = dict(data=dict(bp4d=96, disfa=32, rafau=32, emotionet=32, affectnet=64, rafdb=32, faceme=32),
                 step1=dict(steps=updates), step2=dict(steps=updates), caption=dict(limit=8, max_new=32, decode='greedy', probe_limit=8),
                 start=dict(lm=folder / 'opt', text=folder / 'bert', random='true'))
    return [x for stage, values in small.items() for name, value in values.items() for x in ('-p', f'{stage}.{name}={value}')]


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    p.add_argument('folder', type=Path)
    p.add_argument('--lm', default='6.7b', choices=('2.7b', '6.7b', 'small'))
    p.add_argument('--updates', type=int, default=20)
    o = p.parse_args()
    opt_folder(o.folder.resolve() / 'opt', o.lm)
    bert_folder(o.folder.resolve() / 'bert')
    print(shlex.join(knobs(o.folder.resolve(), o.updates)))
