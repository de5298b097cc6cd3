"models: parts by name, complete sizes, and a start made from LAVIS files through both steps."
import json
from pathlib import Path

import pandas as pd
import papermill
import pytest
import torch
from transformers import BertTokenizerFast, CLIPVisionConfig, CLIPVisionModel, LlamaConfig

from expblip import models, report
from expblip.baselines import generic_start
from expblip.checkpoints import CheckpointError, Start, load_captioner, load_step1, save_step1, save_step2
from expblip.encoders import build_encoder, hub_encoder
from expblip.exchange import write_lavis
from expblip.lm import pad_rows, qformer_rows, small_opt, train_tokenizer
from expblip.models import ENCODERS, MODELS, ModelSize, build, known_shape, make_start, text_tokenizer
from expblip.qformer import QFormerConfig

torch.set_num_threads(1)
TEXTS = ['the face shows happiness', 'the face shows fear']
Q = QFormerConfig(10, 16, 32, 2, 2, 64, queries=4, max_text=16, projection=8, dropout=0.)


@pytest.fixture(scope='module')
def size(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('parts')
    words = train_tokenizer(TEXTS * 9, 300)
    torch.manual_seed(0)
    lm = small_opt(words, 16, 2, 2, 64)
    for p in lm.parameters(): p.data.normal_(0, .5)
    for part in (lm, words): part.save_pretrained(tmp / 'opt')
    names = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the', 'face', 'shows', 'happiness']
    BertTokenizerFast(vocab={w: i for i, w in enumerate(names)}).save_pretrained(tmp / 'bert')
    ENCODERS['toy'] = dict(ENCODERS['eva_vit_g'], hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=28)
    toy = ModelSize('toy', str(tmp / 'opt'), Q, str(tmp / 'bert'))
    write_lavis(tmp / 'blip2.pth', *build(toy))
    yield toy.but(weights=(str(tmp / 'blip2.pth'),))
    del ENCODERS['toy']


def test_from_lavis_file_through_both_steps(size, tmp_path, capsys):
    first = Start(make_start(tmp_path / 'start', size))
    said = capsys.readouterr().out
    assert 'blip2.pth (LAVIS)' in said and f'stays: {size.lm}' in said
    assert not (tmp_path / 'start' / 'lm').exists() and len(first.text_tok) == 10 and len(first.tok) == 287
    one, enc = first.step1(), first.encoder()
    ids, mask = pad_rows(qformer_rows(first.text_tok, TEXTS, 12), first.text_tok.pad_token_id)
    assert one.dec_id == 9 and ids[0, 0] == 2 and ids.max() < 10
    pixels = torch.randn(2, 3, 28, 28)
    one(enc(pixels), ids, mask, torch.arange(2))['loss'].backward()
    save_step1(tmp_path / 'step1', one, first)
    two = first.captioner(load_step1(tmp_path / 'step1', first), enc)
    two(pixels, *two.rows(TEXTS))['loss'].backward()
    save_step2(tmp_path / 'step2', two, first)
    again = load_captioner(tmp_path / 'step2', first)
    with torch.no_grad(): assert torch.equal(again.prefix(pixels), two.eval().prefix(pixels))
    assert again.generate(pixels, max_new_tokens=8) == two.generate(pixels, max_new_tokens=8)


def test_a_start_refuses_an_exchanged_language_model_and_a_senseless_encoder(size, tmp_path):
    folder = make_start(tmp_path / 'start', size)
    config = json.loads((folder / 'config.json').read_text())
    assert config['lm'] == size.lm and {'lm:config.json', 'lm:model.safetensors'} <= set(config['files'])
    config['encoder']['hidden_size'] = 'wide'
    (folder / 'config.json').write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="config.json: 'encoder' describes no image encoder"): Start(folder).encoder()
    weights = Path(size.lm) / 'model.safetensors'
    blob = weights.read_bytes()
    try:
        weights.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
        with pytest.raises(CheckpointError, match='not the file that the config describes'): Start(folder)
    finally: weights.write_bytes(blob)


def test_vocabulary_and_width_must_fit(size, tmp_path):
    with pytest.raises(ValueError, match='has 10 words with .DEC., the Q-Former 11'):
        make_start(tmp_path / 'x', size.but(qformer=QFormerConfig(11, 16, 32, 2, 2, 64, queries=4)))
    with pytest.raises(ValueError, match=r'tokens of width 768, but the Q-Former was made for 1408: use QFormerConfig.paper\(768\)'):
        build(MODELS['full'].but(encoder='mae_vit_b'), 'meta')
    with pytest.raises(OSError): known_shape('no-such/model', models.LANGUAGE_MODELS)


def test_any_causal_language_model_and_any_vision_model(size, tmp_path):
    LlamaConfig(vocab_size=50, hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path / 'llama')
    clip = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    CLIPVisionModel(clip).save_pretrained(tmp_path / 'clip')
    _, two = build(size.but(lm=str(tmp_path / 'llama'), encoder=str(tmp_path / 'clip')))
    assert two.prefix(torch.randn(1, 3, 28, 28)).shape == (1, 4, 24)
    assert hub_encoder(str(tmp_path / 'clip')).tokens == 5


def test_half_precision_encoder_gives_float32_tokens():
    enc = build_encoder(dict(ENCODERS['eva_vit_g'], hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=28),
                        torch.bfloat16)
    assert enc.model.dtype == torch.bfloat16 and enc(torch.randn(1, 3, 28, 28)).dtype == torch.float32


def test_a_checkpoint_without_its_image_encoder_is_refused(tmp_path):
    "transformers would answer with random weights."
    from safetensors.torch import save_file
    from transformers import Blip2VisionConfig, Blip2VisionModel
    tower = Blip2VisionModel(Blip2VisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28))
    tower.save_pretrained(tmp_path)
    state = {k: v for k, v in tower.state_dict().items() if 'mlp' not in k}
    save_file(state, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(ValueError, match='without 4 weights of its image encoder, such as encoder.layers.0.mlp.fc1.bias'): hub_encoder(str(tmp_path))


def test_dec_is_the_last_word(size): assert text_tokenizer(size.text).convert_tokens_to_ids('[DEC]') == 9


def published(place, kind=()):
    "A BLIP-2 folder as Hugging Face writes it, tiny and untrained."
    from transformers import Blip2Config, Blip2ForConditionalGeneration
    torch.manual_seed(0)
    words = train_tokenizer(['a man with a beard', 'a woman with dark hair'] * 9, 300)
    vision = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=28, initializer_range=.02)
    q = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, encoder_hidden_size=16)
    text = dict(kind) or small_opt(words, 16, 1, 2, 64).config.to_dict()
    config = Blip2Config(vision_config=vision, qformer_config=q, text_config=text, num_query_tokens=4)
    if kind: config.save_pretrained(place)
    else:
        whole = Blip2ForConditionalGeneration(config)
        with torch.no_grad(): whole.get_input_embeddings().weight[-20:] *= 30  # whole words, rather than odd bytes
        whole.save_pretrained(place)
    words.save_pretrained(place)
    return str(place)


def test_a_public_blip2_fills_its_row_of_table_2(tmp_path):
    "Stages 10, 20, 50 and 80 by papermill, in a folder of its own, where the start made of it goes."
    root, run = Path(__file__).resolve().parents[1], 'outputs/toy'
    for name in ('data', 'nbs', 'settings.ini', 'pipeline.yaml', 'pyproject.toml'): (tmp_path / name).symlink_to(root / name)
    def stage(name, to, **parameters):
        (tmp_path / run / to).mkdir(parents=True, exist_ok=True)
        papermill.execute_notebook(root / f'nbs/stages/{name}.ipynb', tmp_path / f'{name}.ipynb', dict(out=f'{run}/{to}', device='cpu') | parameters,
            kernel_name='python3', progress_bar=False, cwd=tmp_path)
    data, labels, made = (f'{run}/{name}' for name in ('shared/data', 'shared/synthesize', 'seed0/caption-blip2-coco'))
    stage('10_data', 'shared/data', bp4d=0, disfa=0, rafau=24, emotionet=0, affectnet=0, rafdb=0, faceme=0)
    stage('20_synthesize', 'shared/synthesize', records=data)
    name = published(tmp_path / 'blip2-toy-coco')
    stage('50_caption', 'seed0/caption-blip2-coco', model='blip2-coco', generic=name, checkpoint=None, records=data, decode='greedy', max_new=6)
    stage('80_metrics', 'seed0/metrics', records=data, captions=labels, predictions=made, embedder='none')
    said = pd.read_parquet(tmp_path / made / 'predictions.parquet')
    assert len(said) and set(said.model) == {'blip2-coco'} and name in said.provenance[0]
    assert len(list((tmp_path / 'outputs/starts').glob('*/config.json'))) == 1
    two = pd.read_csv(tmp_path / run / 'seed0/metrics/table2.csv').set_index(['model', 'decode'])
    score = two.loc[('blip2-coco', 'greedy'), 'meteor']
    row = report.table2(report.collect(tmp_path / run)).query("model == 'BLIP-2-COCO' and source != 'paper'").iloc[0]
    assert 0 <= score < .2 and two.loc[('blip2-coco', 'greedy'), 'captions'] == len(said) and float(row.rafau_meteor) == round(score, 3)


def test_an_encoder_decoder_blip2_is_refused_before_anything_is_written(tmp_path):
    name = published(tmp_path / 'blip2-t5', {'model_type': 't5', 'd_model': 16, 'num_layers': 1, 'num_heads': 2, 'vocab_size': 300})
    with pytest.raises(ValueError, match=r'blip2-t5.config.json: its language model is t5.*name a BLIP-2 with OPT'):
        generic_start(name, tmp_path / 'start')
    assert not (tmp_path / 'start').exists()
