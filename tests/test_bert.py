"A Q-Former that begins from BERT, as BLIP-2's did, for whoever has no weights of BLIP-2."
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizerFast, Blip2VisionConfig

from expblip.checkpoints import Start
from expblip.encoders import build_encoder
from expblip.exchange import write_lavis
from expblip.lm import small_opt, train_tokenizer
from expblip.models import ENCODERS, MODELS, build, make_start, named_size, qformer_shape
from expblip.qformer import QFormer, QFormerConfig
from expblip.step1 import Step1
from expblip.weights import ExchangeError, _bert, load_weights, read_weights

torch.set_num_threads(1)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "face", "shows", "fear"]
Q = QFormerConfig(10, 24, 32, 3, 2, 64, queries=4, max_text=16, projection=8, gain=1.)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("bert")
    torch.manual_seed(1)
    cfg = BertConfig(vocab_size=9, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, max_position_embeddings=16)
    model = BertForMaskedLM(cfg).eval()
    for p in model.parameters(): p.data.normal_(0, .3)
    model.bert.embeddings.token_type_embeddings.weight.data.zero_()  # the Q-Former adds no type of token
    model.save_pretrained(tmp)
    BertTokenizerFast(vocab={w: i for i, w in enumerate(WORDS)}).save_pretrained(tmp)
    return tmp, model


def test_words_pass_through_as_through_bert(bert):
    tmp, model = bert
    torch.manual_seed(0)
    ours = Step1(QFormer(Q), 9).eval()
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    report = load_weights(str(tmp), ours)
    ids, mask = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 5, 6, 3, 0, 0]]), torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    with torch.no_grad():
        mine = ours.qformer("text", ids=ids, text_mask=mask)[1]
        theirs = model.bert(ids, mask).last_hidden_state
        assert torch.allclose(mine[mask.bool()], theirs[mask.bool()], atol=2e-5)
        assert torch.allclose(ours.qformer.logits(mine)[..., :9][mask.bool()], model(ids, mask).logits[mask.bool()], atol=1e-4)
    after = ours.state_dict()
    for k in after:
        fresh = "query_tokens" in k or ".cross." in k or not k.startswith("qformer.")
        assert torch.equal(after[k], before[k]) == fresh or after[k].numel() == 0, k
    for k in after:
        if ".ffn_query." in k: assert torch.equal(after[k], after[k.replace("ffn_query", "ffn_text")])
    assert torch.equal(after["qformer.words.weight"][9], before["qformer.words.weight"][9])  # [DEC] is no word of BERT's
    said = str(report)
    assert "(BERT)" in said and "stay as they were built: BERT has none" in said and "the row of [DEC] stays" in said
    assert set(report.filled) == {"queries", "text", "ITG head"} and "ITC and ITM heads" in report.stayed


def test_old_names_and_the_bare_model_are_read_too(bert, tmp_path):
    tmp, model = bert
    bare = BertModel(model.config).eval()
    bare.load_state_dict(model.bert.state_dict(), strict=False)
    bare.save_pretrained(tmp_path / "bare")
    old = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for k, v in model.state_dict().items()}
    torch.save(old | {"cls.seq_relationship.weight": torch.zeros(2, 32)}, tmp_path / "old.bin")
    want = read_weights(str(tmp)).state
    for place in ("bare", "old.bin"):
        found = read_weights(tmp_path / place)
        assert found.layout == "BERT" and all(torch.equal(v, want[k]) for k, v in found.state.items())
    assert any("seq_relationship" in k for k in found.left)
    assert {k for k in want if not k.startswith("qformer.head")} == set(read_weights(tmp_path / "bare").state)


def test_a_bert_of_another_size_is_refused(bert):
    with pytest.raises(ExchangeError, match="holds the queries of another model"):
        load_weights(str(bert[0]), Step1(QFormer(QFormerConfig(10, 24, 32, 5, 2, 64, queries=4, max_text=16)), 9))
    with pytest.raises(ExchangeError, match="this model needs"):
        load_weights(str(bert[0]), Step1(QFormer(QFormerConfig(10, 24, 32, 3, 2, 96, queries=4, max_text=16)), 9))


def test_a_start_from_an_encoder_and_bert_alone(bert, tmp_path, capsys):
    "What `scale=base` needs: the file of stage mae (here an EVA tower's) and bert-base-uncased."
    tmp, model = bert
    words = train_tokenizer(["the face shows fear"] * 9, 300)
    for part in (small_opt(words, 16, 1, 2, 64), words): part.save_pretrained(tmp_path / "opt")
    small = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=28)
    Blip2VisionConfig.from_dict(ENCODERS["eva_vit_g"] | small).save_pretrained(tmp_path / "tower")
    torch.manual_seed(3)
    tower = build_encoder(ENCODERS["eva_vit_g"] | small)
    write_lavis(tmp_path / "tower.pth", tower)
    size = named_size(str(tmp_path / "tower"), str(tmp_path / "opt"), str(tmp), [str(tmp_path / "tower.pth"), str(tmp)])
    assert (size.qformer.hidden, size.qformer.heads, size.qformer.queries, size.qformer.encoder_width, size.qformer.vocab) == (32, 2, 32, 24, 10)
    first = Start(make_start(tmp_path / "start", size))
    assert "BERT has none" in capsys.readouterr().out
    x = torch.randn(1, 3, 28, 28)
    assert torch.equal(first.encoder()(x), tower(x))
    again = first.step1().qformer
    assert torch.equal(again.words.weight[:9], model.bert.embeddings.word_embeddings.weight) and again.query_tokens.std() < .05


def test_the_shape_of_bert_base():
    "bert-base-uncased's own names and sizes make the paper's Q-Former (no weights are needed for that)."
    with torch.device("meta"): whole = BertForMaskedLM(BertConfig())
    found = _bert(dict(whole.state_dict()), "bert-base-uncased")
    assert qformer_shape(found, 30523, 768, 12) == QFormerConfig.paper(768)
    _, captioner = build(MODELS["base"], "meta")
    mine = {"qformer." + k for k in captioner.qformer.state_dict()}
    assert mine - set(found.state) == {k for k in mine if "query_tokens" in k or ".cross." in k} and not set(found.state) - mine
