"weights and exchange: every layout in, two layouts out, round trips bit by bit, and what does not fit is refused before anything changes."
import pickle

import pytest
import torch

from expblip.checkpoints import save_checkpoint
from expblip.encoders import DrawnEncoder, EncoderConfig, build_encoder
from expblip.exchange import to_hf, write_hf, write_lavis
from expblip.io import load_tensors, save_tensors
from expblip.lm import small_opt, train_tokenizer
from expblip.mapping import HF, LAVIS, OURS, PARTS, RULES, MappingError, from_mae, from_ours, part_of, rename, rule_of, to_ours
from expblip.models import MODELS, build
from expblip.qformer import QFormer, QFormerConfig
from expblip.step1 import Step1
from expblip.step2 import ExpressionCaptioner
from expblip.weights import ExchangeError, load_weights, our_state, read_weights, stretch

torch.set_num_threads(1)
TOK = train_tokenizer(['It is a people who raises cheek.', 'The face shows happiness.'] * 9, 300)
TOWER = dict(model_type='blip_2_vision_model', hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28,
             patch_size=14, initializer_range=.02)


def tiny(seed: int, tower: dict | None = None, **changes) -> tuple[Step1, ExpressionCaptioner]:
    torch.manual_seed(seed)
    enc = build_encoder(TOWER | (tower or {}))
    cfg = dict(vocab=len(TOK), encoder_width=16, hidden=32, layers=2, heads=2, ffn=64, queries=4, max_text=16, projection=8) | changes
    one = Step1(QFormer(QFormerConfig(**cfg)), TOK.convert_tokens_to_ids('[DEC]'))
    two = ExpressionCaptioner(enc, one.qformer, small_opt(TOK, 24, 2, 2, 32), TOK, one.ln_vision)
    for m in (one, two):
        for name, p in m.named_parameters():
            if p.dim() < 2 and 'qkv' not in name: p.data.add_(torch.randn_like(p) * .1)  # no bias and no norm stays at its start
    for layer in enc.model.encoder.layers:
        layer.self_attn.qkv.bias.data = torch.cat([torch.randn(16), torch.zeros(16), torch.randn(16)])
    return one, two


def flat(*models) -> dict[str, torch.Tensor]: return {k: v[0].detach() for k, v in our_state(*models).items()}


def same(a: dict, b: dict) -> bool: return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope='module')
def pair(): return tiny(0)


# ---------------------------------------------------------------- names

def test_every_rule_goes_there_and_back():
    for ours, lavis, theirs in RULES:
        key = ours.replace('#', '7').replace('*', 'weight')
        assert rule_of(key, OURS) == (ours, lavis, theirs) and part_of(key) in PARTS
        assert rename(rename(key, OURS, LAVIS), LAVIS, OURS) == key
        if theirs: assert rename(rename(key, OURS, HF), HF, OURS) == key


def test_no_two_rules_know_the_same_name(pair):
    for column in (OURS, LAVIS, HF):
        names = [r[column] for r in RULES if r[column]]
        assert len(set(names)) == len(names)
    ours = flat(*pair)
    assert len({rename(k, OURS, LAVIS) for k in ours}) == len(ours)


def test_unknown_names_are_named_with_shape_and_nearest_rule():
    with pytest.raises(MappingError, match=r'Qformer.bert.pooler.dense.weight: no rule .* LAVIS.*shape \(2, 3\)'):
        to_ours({'Qformer.bert.pooler.dense.weight': torch.zeros(2, 3)}, LAVIS)
    with pytest.raises(MappingError, match=r'the nearest rule reads visual_encoder.blocks.#.norm.\.'):
        to_ours({'visual_encoder.blocks.0.norm3.weight': torch.zeros(2)}, LAVIS)
    with pytest.raises(MappingError, match='q_bias without'): to_ours({'visual_encoder.blocks.0.attn.q_bias': torch.zeros(2)}, LAVIS)
    with pytest.raises(MappingError, match='belongs to no part'): part_of('optimizer.step')


def test_tied_tensors_must_agree(pair):
    state, _ = from_ours(flat(pair[0]), LAVIS)
    assert torch.equal(state['Qformer.cls.predictions.decoder.weight'], pair[0].qformer.words.weight)
    state['Qformer.cls.predictions.decoder.weight'] = state['Qformer.cls.predictions.decoder.weight'] + 1
    with pytest.raises(MappingError, match='tied weights'): to_ours(state, LAVIS)


# ---------------------------------------------------------------- round trips

def test_lavis_and_back_bit_by_bit(pair, tmp_path):
    assert write_lavis(tmp_path / 'a.pth', *pair, without=()) == []
    other = tiny(1)
    report = load_weights(tmp_path / 'a.pth', *other)
    assert same(flat(*pair), flat(*other)) and not report.stayed and not report.unused and report.layout == 'LAVIS'
    first = torch.load(tmp_path / 'a.pth', weights_only=True)
    write_lavis(tmp_path / 'b.pth', *other, without=())
    assert same(first['model'], torch.load(tmp_path / 'b.pth', weights_only=True)['model']) and set(first) == {'model', 'config', 'epoch'}


def test_hugging_face_and_back_bit_by_bit(pair, tmp_path):
    kept = write_hf(tmp_path / 'captioner', pair[1], pair[0])
    assert {part_of(k) for k in kept} == {'text', 'ITG head', 'ITC and ITM heads', 'temperature'}
    other = tiny(1)
    report = load_weights(tmp_path / 'captioner', *other)
    assert same(flat(*pair), flat(*other)) and not report.stayed and report.layout == 'Hugging Face'
    assert 'epsilon of 1e-6' in str(report)
    kept = write_hf(tmp_path / 'retrieval', pair[0], pair[1].encoder)
    assert {part_of(k) for k in kept} == {'ITG head', 'temperature'}
    one, two = tiny(2)
    load_weights(tmp_path / 'retrieval', one, two.encoder)
    assert same(flat(pair[0], pair[1].encoder), flat(one, two.encoder))


def test_without_our_file_hugging_face_lacks_temperature_and_itg(pair, tmp_path):
    write_hf(tmp_path, pair[0], pair[1].encoder)
    (tmp_path / 'expblip.safetensors').unlink()
    one, two = tiny(3)
    before = one.temp.clone()
    report = load_weights(tmp_path, one, two.encoder)
    assert set(report.stayed) == {'ITG head', 'temperature'} and torch.equal(one.temp, before)


def test_our_own_checkpoint(pair, tmp_path):
    save_checkpoint(tmp_path / 'own', flat(pair[0]), dict(step=1))
    one, _ = tiny(4)
    assert load_weights(tmp_path / 'own', one).layout == 'expblip' and same(flat(one), flat(pair[0]))


def test_hugging_face_in_several_pieces_and_as_pickle(pair, tmp_path):
    model, _ = to_hf(pair[1])
    model.save_pretrained(tmp_path / 'pieces', max_shard_size='40KB')
    assert len(list((tmp_path / 'pieces').glob('*.safetensors'))) > 2
    one, two = tiny(5)
    load_weights(tmp_path / 'pieces', two)
    assert torch.equal(two.proj.weight, pair[1].proj.weight)
    (tmp_path / 'old').mkdir()
    (tmp_path / 'old' / 'config.json').write_text((tmp_path / 'pieces' / 'config.json').read_text())
    torch.save(model.state_dict(), tmp_path / 'old' / 'pytorch_model.bin')
    one, two = tiny(6)
    load_weights(tmp_path / 'old', two)
    assert torch.equal(two.proj.weight, pair[1].proj.weight)


def test_a_bias_of_the_keys_is_dropped_said_and_without_effect(pair, tmp_path):
    _, two = tiny(7)
    bias = two.encoder.model.encoder.layers[0].self_attn.qkv.bias
    bias.data[16:32] = torch.randn(16)
    assert write_lavis(tmp_path / 'k.pth', two) == ['1 key biases left out: LAVIS has none, and softmax does not see them']
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        before = two.encoder(pixels)
        load_weights(tmp_path / 'k.pth', two)
        assert bias.data[16:32].count_nonzero() == 0 and torch.allclose(two.encoder(pixels), before, atol=1e-5)


# ---------------------------------------------------------------- subsets

@pytest.mark.parametrize('missing', ('image encoder', 'ln_vision', 'queries', 'text', 'ITG head', 'ITC and ITM heads', 'temperature', 'projection'))
def test_any_part_may_be_missing_and_is_reported(pair, tmp_path, missing):
    write_lavis(tmp_path / 'a.pth', *pair, without=(missing, 'language model'))
    other = tiny(8); before = {k: v.clone() for k, v in flat(*other).items()}
    report = load_weights(tmp_path / 'a.pth', *other)
    assert set(report.stayed) == {missing, 'language model'} and 'as the model was built' in report.stayed[missing]
    after, want = flat(*other), flat(*pair)
    for k in after:
        stays = part_of(k) in (missing, 'language model')
        assert torch.equal(after[k], before[k] if stays else want[k]), k


def test_step_1_into_step_2_and_where_the_rest_comes_from(pair, tmp_path):
    write_lavis(tmp_path / 'step1.pth', pair[0]); write_lavis(tmp_path / 'vit.pth', pair[1].encoder)
    _, two = tiny(9)
    load_weights(tmp_path / 'vit.pth', two)
    two.lm.name_or_path = 'facebook/opt-2.7b'
    report = load_weights(tmp_path / 'step1.pth', two)
    assert report.stayed['image encoder'] == str(tmp_path / 'vit.pth') and report.stayed['language model'] == 'facebook/opt-2.7b'
    assert report.unused == {'ITC and ITM heads': 6, 'temperature': 1} and 'as the model was built' in report.stayed['projection']
    assert 'no such part in this model' in str(report)


def test_only_what_is_asked_for(pair, tmp_path):
    write_lavis(tmp_path / 'a.pth', *pair)
    one, two = tiny(10)
    before = two.proj.weight.clone()
    report = load_weights(tmp_path / 'a.pth', one, two, parts=('image encoder',))
    assert list(report.filled) == ['image encoder'] and torch.equal(two.proj.weight, before)
    with pytest.raises(ExchangeError, match='nothing of that was asked for'): load_weights(tmp_path / 'a.pth', two.encoder, parts=('queries',))


def test_half_precision_files_fill_float32_models(pair, tmp_path):
    state, _ = from_ours({k: v.half() for k, v in flat(pair[0]).items()}, LAVIS)
    torch.save(dict(model=state), tmp_path / 'half.pth')
    one, _ = tiny(11)
    load_weights(tmp_path / 'half.pth', one)
    assert one.temp.dtype == torch.float32 and torch.equal(one.itm_head.weight, pair[0].itm_head.weight.half().float())


# ---------------------------------------------------------------- what does not fit

def unchanged(model, path, match):
    before = {k: v.clone() for k, v in flat(model).items()}
    with pytest.raises(ExchangeError, match=match): load_weights(path, model)
    assert same(before, flat(model))


def test_wrong_shape_half_a_part_and_foreign_names(pair, tmp_path):
    write_lavis(tmp_path / 'a.pth', *pair)
    unchanged(tiny(1, ffn=96)[0], tmp_path / 'a.pth', r'output_query.dense.weight has shape \(32, 64\), this model needs \(32, 96\).*rule')
    unchanged(tiny(1, layers=3)[0], tmp_path / 'a.pth', r'queries of another model: it lacks 26 tensors, such as qformer.layers.2.*LAVIS: Qformer')
    unchanged(tiny(1, layers=1)[0], tmp_path / 'a.pth', 'this model lacks 16 tensors')
    unchanged(tiny(1, tower=dict(num_hidden_layers=3))[1].encoder, tmp_path / 'a.pth', 'image encoder of another model')
    state = torch.load(tmp_path / 'a.pth', weights_only=True)
    state['model']['t5_proj.weight'] = torch.zeros(3, 2)
    torch.save(state, tmp_path / 't5.pth')
    unchanged(pair[1], tmp_path / 't5.pth', r't5.pth: 1 unknown tensors: t5_proj.weight.*shape \(3, 2\)')


def test_files_that_are_no_weights(tmp_path):
    for name, content, match in (('a.pth', b'', 'a.pth: is empty: fetch it again'), ('b.pth', b'PK\x03\x04 cut', 'breaks off after 8 bytes'),
                                 ('f.pth', b'<!DOCTYPE html><html>', 'is a web page and not weights: the link gave its page'),
                                 ('g.safetensors', b'\n<HTML>', 'is a web page'),
                                 ('h.pth', b'just words', 'is neither a torch nor a safetensors file'),
                                 ('i.bin', b'version https://git-lfs.github.com/spec/v1\n', 'is a git-lfs pointer.*git lfs pull'),
                                 ('j.pth', b'\x80\x02garbage', 'not a whole torch file .*fetch it again'),
                                 ('c.pth', pickle.dumps(dict(a=1), 2), 'not a whole torch file .*magic number')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ExchangeError, match=match): read_weights(tmp_path / name)
    torch.save(dict(model=dict(epoch=3)), tmp_path / 'd.pth')
    with pytest.raises(ExchangeError, match='holds no tensors by name'): read_weights(tmp_path / 'd.pth')
    torch.save(dict(model={'conv1.weight': torch.zeros(1)}), tmp_path / 'e.pth')
    with pytest.raises(ExchangeError, match='belong to no known layout'): read_weights(tmp_path / 'e.pth')
    with pytest.raises(ExchangeError, match='no such file'): read_weights(tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir(); (tmp_path / 'empty' / 'config.json').write_text('{}')
    with pytest.raises(ExchangeError, match='neither model.safetensors nor'): read_weights(tmp_path / 'empty')


def test_a_file_is_read_as_what_it_is_and_not_as_what_it_is_called(pair, tmp_path):
    save_tensors(tmp_path / 'a.safetensors', flat(pair[0]))
    (tmp_path / 'a.safetensors').rename(tmp_path / 'renamed.pth')
    write_lavis(tmp_path / 'b.pth', pair[0]); (tmp_path / 'b.pth').rename(tmp_path / 'renamed.safetensors')
    assert same(read_weights(tmp_path / 'renamed.pth').state, flat(pair[0]))
    assert same(read_weights(tmp_path / 'renamed.safetensors').state, flat(pair[0]))


@pytest.fixture
def pieces(pair, tmp_path):
    to_hf(pair[1])[0].save_pretrained(tmp_path / 'pieces', max_shard_size='40KB')
    return tmp_path / 'pieces'


def cut(path): path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize('name, change, match', [
    ('model-00002*', lambda path: path.unlink(), r'model-00002\S+ is missing, one of \d+ pieces that model.safetensors.index.json names: fetch'),
    ('model-00002*', cut, r'model-00002\S+: breaks off: [\d,]+ of [\d,]+ bytes are there: fetch it again'),
    ('*.index.json', lambda path: path.write_text('{}'), r'index.json holds no entries: fetch it again'),
    ('*.index.json', lambda path: path.write_text('{"weight_map": 3}'), r'index.json has no weight_map'),
    ('*.index.json', cut, r'index.json: not readable as JSON .*Fetch it again'),
    ('*.index.json', lambda path: path.unlink(), r'has \d+ pieces such as model-00001-of-\S+, but no index .*fetch model.safetensors.index.json'),
    ('config.json', cut, r'config.json: not readable as JSON .*Fetch it again')])
def test_a_download_that_broke_is_fetched_again_and_no_stage_is_blamed(pair, pieces, name, change, match):
    change(next(pieces.glob(name)))
    with pytest.raises(ExchangeError, match=match) as told: read_weights(pieces)
    assert 'stage' not in str(told.value)


def test_the_prefix_of_several_processes_is_read_and_reported(pair, tmp_path):
    state, _ = from_ours(flat(pair[0]), LAVIS)
    torch.save({f'module.{key}': value for key, value in state.items()}, tmp_path / 'ddp.pth')
    one, _ = tiny(14)
    report = load_weights(tmp_path / 'ddp.pth', one)
    assert same(flat(one), flat(pair[0])) and 'all names begin with module. ' in str(report)
    state['Qformer.bert.embeddings.LayerNorm.weight'] = torch.zeros(3)
    torch.save({f'module.{key}': value for key, value in state.items()}, tmp_path / 'ddp.pth')
    unchanged(one, tmp_path / 'ddp.pth', r'ddp.pth: module.Qformer.bert.embeddings.LayerNorm.weight has shape \(3,\)')


def test_weights_that_are_no_numbers_are_refused(pair, tmp_path):
    state, _ = from_ours(flat(pair[0]), LAVIS)
    torch.save(dict(model=state | dict(query_tokens=torch.ones_like(state['query_tokens'], dtype=torch.int8))), tmp_path / 'int.pth')
    unchanged(tiny(15)[0], tmp_path / 'int.pth', r'int.pth: query_tokens holds int8 and no weights')
    broken = state['query_tokens'].clone(); broken[0, 0, :2] = torch.tensor([float('nan'), float('inf')])
    torch.save(dict(model=state | dict(query_tokens=broken)), tmp_path / 'nan.pth')
    unchanged(tiny(15)[0], tmp_path / 'nan.pth', r'nan.pth: query_tokens holds 2 numbers that are not finite \(of 128\)')


def test_positions_that_cannot_be_stretched_name_the_file(pair, tmp_path):
    state, _ = from_ours(flat(pair[1].encoder), LAVIS)
    torch.save(dict(model=state | {'visual_encoder.pos_embed': torch.zeros(1, 12, 16)}), tmp_path / 'odd.pth')
    unchanged(pair[1].encoder, tmp_path / 'odd.pth', r'odd.pth: visual_encoder.pos_embed: position embeddings of 12 tokens cannot be stretched to 5')


class Evil:
    def __reduce__(self): return exec, ("raise SystemError('a program ran')",)


def test_a_pickle_that_would_run_a_program_is_not_opened(tmp_path):
    torch.save(dict(model={'temp': torch.zeros(())}, config=Evil()), tmp_path / 'evil.pth')
    with pytest.raises(ExchangeError, match='could run a program: it was not opened'): read_weights(tmp_path / 'evil.pth')


def test_encoders_that_have_no_place_in_a_format(pair, tmp_path):
    drawn = DrawnEncoder(EncoderConfig(32, (8, 16), 16, 1, 2, 32))
    two = ExpressionCaptioner(drawn, pair[0].qformer, pair[1].lm, TOK, pair[0].ln_vision)
    with pytest.raises(MappingError, match="Leave the part 'image encoder' out"): write_lavis(tmp_path / 'a.pth', two)
    assert write_lavis(tmp_path / 'a.pth', two, without=('image encoder', 'language model')) == []
    with pytest.raises(ExchangeError, match='needs a BLIP-2 vision tower .* has DrawnEncoder'): write_hf(tmp_path / 'hf', two)


# ---------------------------------------------------------------- EVA-CLIP, MAE, pictures of another size

def test_eva_file_loses_its_last_block(tmp_path):
    _, big = tiny(12, dict(num_hidden_layers=3, image_size=42))
    state = {k.removeprefix('visual_encoder.'): v for k, v in from_ours(flat(big.encoder), LAVIS)[0].items()}
    torch.save(state | {'norm.weight': torch.ones(16), 'head.bias': torch.ones(3)}, tmp_path / 'eva_vit_g.pth')
    _, two = tiny(13)
    report = load_weights(tmp_path / 'eva_vit_g.pth', two)
    own = two.encoder.model.encoder.layers
    assert report.layout == 'EVA' and all(torch.equal(own[i].mlp.fc1.weight, big.encoder.model.encoder.layers[i].mlp.fc1.weight) for i in (0, 1))
    assert 'stretched from 10 to 5 tokens' in str(report) and 'the last block' in str(report)


def test_stretching_positions():
    grid = torch.arange(9.).view(3, 3) + 10
    positions = torch.cat([torch.tensor([[[7.]]]), grid.reshape(1, 9, 1)], 1)
    assert torch.equal(stretch(positions, 10), positions)
    wide = stretch(positions, 26)[0, 1:, 0].view(5, 5)
    assert stretch(positions, 26)[0, 0, 0] == 7 and abs(wide[2, 2] - 14) < 1e-5 and (wide.diff(dim=0) > 0).all() and (wide.diff(dim=1) > 0).all()
    with pytest.raises(ExchangeError, match='10 tokens cannot be stretched to 12'): stretch(positions, 12)


def test_mae_file_into_vit(tmp_path):
    "Against attention computed from the file's own joint matrix."
    shape = dict(model_type='vit', hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16,
                 layer_norm_eps=1e-6, hidden_dropout_prob=0., attention_probs_dropout_prob=0.)
    torch.manual_seed(0)
    state = dict(cls_token=torch.randn(1, 1, 16), pos_embed=torch.randn(1, 5, 16), mask_token=torch.randn(1, 1, 16), decoder_pred=torch.randn(3))
    state |= {'patch_embed.proj.weight': torch.randn(16, 3, 16, 16) * .05, 'patch_embed.proj.bias': torch.randn(16), 'norm.weight': torch.rand(16)}
    state |= {'norm.bias': torch.randn(16)}
    for i in range(2):
        sizes = dict(norm1=(16,), norm2=(16,)) | {'attn.qkv': (48, 16), 'attn.proj': (16, 16), 'mlp.fc1': (32, 16), 'mlp.fc2': (16, 32)}
        for name, size in sizes.items():
            state[f'blocks.{i}.{name}.weight'], state[f'blocks.{i}.{name}.bias'] = torch.randn(size) * .3, torch.randn(size[0]) * .1
    torch.save(dict(model=state), tmp_path / 'mae_pretrain_vit_base.pth')
    enc = build_encoder(shape)
    report = load_weights(tmp_path / 'mae_pretrain_vit_base.pth', enc)
    assert report.layout == 'MAE' and report.filled == {'image encoder': sum(1 for _ in enc.state_dict())}
    pixels = torch.randn(2, 3, 32, 32)
    def norm(x, n): return torch.nn.functional.layer_norm(x, (16,), state[f'{n}.weight'], state[f'{n}.bias'], 1e-6)
    def lin(x, n): return x @ state[f'{n}.weight'].T + state[f'{n}.bias']
    x = torch.nn.functional.conv2d(pixels, state['patch_embed.proj.weight'], state['patch_embed.proj.bias'], 16).flatten(2).mT
    x = torch.cat([state['cls_token'].expand(2, -1, -1), x], 1) + state['pos_embed']
    for i in range(2):
        q, k, v = lin(norm(x, f'blocks.{i}.norm1'), f'blocks.{i}.attn.qkv').view(2, 5, 3, 2, 8).permute(2, 0, 3, 1, 4)
        y = ((q @ k.mT / 8**.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + lin(y, f'blocks.{i}.attn.proj')
        x = x + lin(torch.nn.functional.gelu(lin(norm(x, f'blocks.{i}.norm2'), f'blocks.{i}.mlp.fc1')), f'blocks.{i}.mlp.fc2')
    with torch.no_grad(): assert torch.allclose(enc(pixels), norm(x, 'norm'), atol=1e-4)
    with pytest.raises(MappingError, match='layout of a masked autoencoder'): from_mae({'blocks.0.ls1.gamma': torch.zeros(2)})


# ---------------------------------------------------------------- the real sizes, on the meta device

@pytest.mark.parametrize('lm', ('facebook/opt-2.7b', 'facebook/opt-6.7b'))
def test_names_and_shapes_of_the_real_models_are_hugging_faces(lm):
    from transformers import AutoConfig, Blip2Config, Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval

    from expblip.models import LANGUAGE_MODELS
    step1, captioner = build(MODELS['full'].but(lm=lm), 'meta')
    assert len(captioner.encoder.model.encoder.layers) == 39 and captioner.encoder.tokens == 257 and captioner.encoder.width == 1408
    text = AutoConfig.for_model(**LANGUAGE_MODELS[lm])
    with torch.device('meta'):
        theirs = Blip2ForConditionalGeneration(Blip2Config(text_config=text.to_dict()))
        other = Blip2ForImageTextRetrieval(Blip2Config(qformer_config=dict(vocab_size=30523, use_qformer_text_input=True),
                                                       text_config=dict(model_type='opt', num_hidden_layers=1)))
    for model, parts, want in ((theirs, ('image encoder', 'ln_vision', 'queries', 'projection', 'language model'), captioner),
                               (other, ('image encoder', 'ln_vision', 'queries', 'text', 'ITC and ITM heads'), None)):
        state = flat(want) if want else flat(step1, captioner.encoder)
        found, _ = from_ours({k: v for k, v in state.items() if part_of(k) in parts}, HF)
        assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_base_and_full_are_complete_and_printed(capsys):
    MODELS['full'].echo()
    said = capsys.readouterr().out
    for word in ('985.9 M', '186.7 M', '6658', 'eva_vit_g', 'num_hidden_layers 39', 'patch_size 14', 'queries 32', 'bert-base-uncased',
                 'ffn_dim 16384', '3.15 M'): assert word in said, word
    MODELS['base'].echo()
    said = capsys.readouterr().out
    for word in ('85.8 M', 'mae_vit_b', 'patch_size 16', 'facebook/opt-2.7b', '1.97 M'): assert word in said, word


def test_save_tensors_of_the_homeless_is_a_plain_file(pair, tmp_path):
    save_tensors(tmp_path / 'x.safetensors', flat(pair[0]))
    assert same(read_weights(tmp_path / 'x.safetensors').state, load_tensors(tmp_path / 'x.safetensors'))


def test_a_lavis_file_may_have_any_name(pair, tmp_path):
    write_lavis(tmp_path / 'plain', *pair, without=())
    assert read_weights(tmp_path / 'plain').layout == 'LAVIS'
