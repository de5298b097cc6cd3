"lm: token rows whose end is never cut, the tokenizer's ids, loading frozen."
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expblip.lm import SPECIALS, lm_rows, load_lm, newline_id, pad_rows, qformer_rows, small_opt, train_tokenizer

torch.set_num_threads(1)
TEXTS = ["It is a people who raises cheek and pulls lip corner.", "The face shows happiness.", "It is a people who drops jaw."]
TOK = train_tokenizer(TEXTS * 20, 400)


def test_special_tokens_have_opts_ids():
    assert [TOK.convert_tokens_to_ids(s) for s in SPECIALS] == list(range(7))
    assert (TOK.pad_token_id, TOK.bos_token_id, TOK.eos_token_id, TOK.cls_token_id, TOK.sep_token_id) == (1, 2, 2, 4, 5)
    assert newline_id(TOK) not in range(7)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=4), st.integers(3, 24))
def test_the_end_survives_truncation_whatever_the_text(texts, longest):
    for rows, first, last in ((lm_rows(TOK, texts, longest), TOK.bos_token_id, newline_id(TOK)),
                              (qformer_rows(TOK, texts, longest), TOK.cls_token_id, TOK.sep_token_id)):
        assert len(rows) == len(texts)
        for r in rows: assert r[0] == first and r[-1] == last and len(r) <= longest


def test_words_come_back_lower_case_and_unseen_letters_are_known():
    assert [TOK.decode(r[1:-1]).strip() for r in lm_rows(TOK, TEXTS)] == [t.lower() for t in TEXTS]
    assert TOK.unk_token_id not in lm_rows(TOK, ["Žluťoučký 😀"])[0]


def test_pad_rows_pads_right_to_the_longest_of_the_batch():
    ids, mask = pad_rows([[4, 7, 5], [4, 5]], 1)
    assert ids.tolist() == [[4, 7, 5], [4, 5, 1]] and mask.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_a_tokenizer_without_newline_is_refused():
    class Mute:
        unk_token_id = 0
        def convert_tokens_to_ids(self, name): return 0
    with pytest.raises(ValueError, match="no single newline token"): newline_id(Mute())


def test_loading_freezes_and_says_the_same(tmp_path):
    torch.manual_seed(0)
    lm = small_opt(TOK, 32, 2, 2)
    lm.save_pretrained(tmp_path); TOK.save_pretrained(tmp_path)
    again, tok = load_lm(tmp_path)
    ids, mask = pad_rows(lm_rows(tok, TEXTS), tok.pad_token_id)
    assert lm_rows(tok, TEXTS) == lm_rows(TOK, TEXTS)
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    assert again.generation_config.eos_token_id == newline_id(TOK)
    with torch.no_grad(): assert torch.equal(lm.eval()(ids, mask).logits, again(ids, mask).logits)


def test_a_missing_folder_names_the_remedy():
    with pytest.raises(FileNotFoundError, match=r"no language model at \./nowhere: build it with `make drawn-blip2`"): load_lm("./nowhere")
