"pretraining: generic faces are reproducible and nobody names an action; crops move landmarks; notes, captions, cached tokens."
import random

import numpy as np
import pytest
import torch

from expblip.documents import KINDS, NOTES, Noted, appearance_caption, noted
from expblip.encoders import DrawnEncoder, EncoderConfig
from expblip.faces import appearance, coded, legal
from expblip.facs import parse
from expblip.images import evaluation_view
from expblip.lm import lm_rows, newline_id, pad_rows, small_opt, train_tokenizer
from expblip.pretraining import (
    OBJECTIVES, EncoderBatches, EncoderPretraining, FrozenStep2, LMBatches, LMPretraining, SoftBatches, SoftNotes, continue_notes, document_rows,
    draw_pool, encode_views, generic_faces)
from expblip.qformer import QFormer, QFormerConfig
from expblip.step2 import ExpressionCaptioner

torch.set_num_threads(1)
DOCS = ["notes : au6 , au12 | rule\nIt is a people who raises cheek and pulls lip corner.\n",
        "notes : happiness | emotion\nThe face shows happiness.\n"]
TOK = train_tokenizer(DOCS * 10, 420)
SMALL = EncoderConfig(32, (8, 16), 24, 1, 2, 32)


def test_generic_faces_are_the_same_for_a_seed_and_others_for_another():
    a, b, c = generic_faces(6, 0), generic_faces(8, 0)[:6], generic_faces(6, 1)
    assert repr(a) == repr(b) != repr(c)
    (images, points), (images2, points2) = draw_pool(a, 48), draw_pool(b, 48)
    assert np.array_equal(images, images2) and np.array_equal(points, points2) and points.shape[0] == 6 and points.shape[2] == 2


def test_generic_faces_move_legally_and_come_four_to_a_person():
    faces = generic_faces(40, 3)
    assert all(legal(coded(f.aus)) for f in faces) and sum(bool(coded(f.aus)) for f in faces) > 20
    assert len({repr(f.identity) for f in faces}) == 10


def test_appearance_captions_carry_no_action_and_no_emotion():
    rng = random.Random(0)
    for face in generic_faces(200, 5):
        said = parse(appearance_caption(appearance(face), rng))
        assert not said.aus and not said.emotions


def test_a_crop_moves_the_landmarks_with_the_picture():
    images, points = np.zeros((12, 96, 96, 3), np.uint8), np.random.default_rng(0).uniform(-.5, .5, (12, 1, 2)).astype("float32")
    for im, (x, y) in zip(images, (points[:, 0] + 1) * 48): im[int(y) - 2:int(y) + 3, int(x) - 2:int(x) + 3] = 255
    b = EncoderBatches(images, points, 96, 6)(np.arange(12), np.arange(12))
    bright = b["pixels"].mean(1).clamp(min=0)
    grid = torch.linspace(-1, 1, 96)
    centre = torch.stack([(bright.sum(1) * grid).sum(1), (bright.sum(2) * grid).sum(1)], 1) / bright.sum((1, 2))[:, None]
    assert (centre - b["points"][:, 0]).abs().max() < .03 and (b["points"] - torch.from_numpy(points)).abs().max() > .02
    assert b["hidden"].shape == (12, 6, 6) and b["hidden"].dtype == torch.bool


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_both_objectives_train_the_encoder_and_its_statistics(objective):
    torch.manual_seed(0)
    model = EncoderPretraining(DrawnEncoder(SMALL), 5, objective).train()
    before = model.encoder.stages[0].down[1].running_mean.clone()
    loss = model(torch.randn(4, 3, 32, 32), torch.rand(4, 5, 2), torch.rand(4, 8, 8) < .5)["loss"]
    loss.backward()
    assert loss.isfinite() and model.encoder.stages[0].down[0].weight.grad.abs().sum() > 0
    assert not torch.equal(model.encoder.stages[0].down[1].running_mean, before)


def test_labels_are_no_objective():
    with pytest.raises(ValueError, match="unknown objective 'labels': use one of landmarks, mae"):
        EncoderPretraining(DrawnEncoder(SMALL), 5, "labels")


def test_mae_is_judged_on_hidden_patches_only_and_never_sees_them():
    torch.manual_seed(0)
    model = EncoderPretraining(DrawnEncoder(SMALL), 5, "mae").eval()
    pixels, hidden = torch.randn(1, 3, 32, 32), torch.zeros(1, 8, 8, dtype=torch.bool); hidden[0, 0, 0] = True
    seen: list[torch.Tensor] = []
    model.encoder.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model(pixels, None, hidden)
    assert seen[0][..., :4, :4].abs().max() == 0 and torch.equal(seen[0][..., 4:], pixels[..., 4:])


def test_only_the_caption_is_predicted():
    rows = document_rows(TOK, DOCS)
    b = LMBatches(rows, TOK.pad_token_id)(np.array([1, 0]))
    assert [TOK.decode(i[c]).strip() for i, c in zip(b["ids"], b["caption"])] == [d.split("\n")[1].lower() for d in DOCS[::-1]]
    for i, c in zip(b["ids"], b["caption"]): assert i[c][-1] == newline_id(TOK) and i[int(c.nonzero()[0]) - 1] == TOK.bos_token_id


def test_noise_is_for_training_and_for_notes_only():
    torch.manual_seed(0)
    model = LMPretraining(small_opt(TOK, 32, 2, 2), noise=2.)
    b = LMBatches(document_rows(TOK, DOCS), TOK.pad_token_id)(np.array([0, 1]))
    model.eval(); assert torch.equal(model(**b)["loss"], model(**b)["loss"])
    model.train(); assert not torch.equal(model(**b)["loss"], model(**b)["loss"])
    fed: list[torch.Tensor] = []
    model.lm.base_model.register_forward_pre_hook(lambda m, args, kwargs: fed.append(kwargs["inputs_embeds"]), with_kwargs=True)
    model(**b)
    moved = (fed[0] - model.lm.get_input_embeddings()(b["ids"])).abs().amax(-1) > 0
    assert torch.equal(moved, b["mask"].bool() & ~b["caption"])


def test_notes_learned_by_heart_are_continued_alone_or_together():
    torch.manual_seed(0)
    lm, rows = small_opt(TOK, 64, 2, 2), document_rows(TOK, DOCS)
    b, model = LMBatches(rows, TOK.pad_token_id)(np.array([0, 1])), LMPretraining(lm)
    opt = torch.optim.AdamW(lm.parameters(), 3e-3)
    for _ in range(100): loss = model(**b)["loss"]; opt.zero_grad(); loss.backward(); opt.step()
    said = continue_notes(lm, TOK, rows, 30)
    assert said == [d.split("\n")[1].lower() for d in DOCS] == [continue_notes(lm, TOK, [r], 30)[0] for r in rows]


BOTH = [Noted("It is a people who raises cheek and pulls lip corner.", "rule", [6, 12]),
        Noted("The face shows happiness.", "emotion", None, ["happiness"])]


def test_soft_notes_are_where_the_document_says():
    soft = SoftNotes(small_opt(TOK, 32, 2, 2), slots=3)
    b = SoftBatches(soft, BOTH, TOK)(np.array([0, 1]))
    assert [[NOTES[k] for k in row.nonzero()[:, 0]] for row in b["notes"]] == [["au6", "au12", "rule"], ["happiness", "emotion"]]
    soft.eval()
    # wherever a note is put, its whole vector is in the prefix: the slots add up
    total = soft.prefix(b["notes"]).sum(1) - soft.base.sum(0)
    assert torch.allclose(total, b["notes"] @ soft.vectors, atol=1e-4)
    soft.train()
    doubtful = soft.prefix(b["notes"]).sum(1) - soft.base.sum(0)
    assert not torch.allclose(doubtful, b["notes"] @ soft.vectors, atol=1e-2)


def test_soft_notes_learned_by_heart_and_all_kinds_have_words():
    torch.manual_seed(0)
    soft = SoftNotes(small_opt(TOK, 64, 2, 2), slots=4)
    feed, opt = SoftBatches(soft, BOTH, TOK), torch.optim.AdamW(soft.parameters(), 3e-3)
    for _ in range(120): loss = soft(**feed(np.arange(2)))["loss"]; opt.zero_grad(); loss.backward(); opt.step()
    assert soft.say(feed(np.arange(2))["notes"], TOK, 30) == [d.text.lower() for d in BOTH]
    assert all(set(noted(kind, s).notes) <= set(NOTES) for kind in KINDS for s in range(100))


def test_the_landmark_head_answers_quietly():
    "One update of Adam may not move a guess by more than about a picture side, whatever the number of tokens."
    torch.manual_seed(0)
    images, points = draw_pool(generic_faces(8, 0), 48)
    model = EncoderPretraining(DrawnEncoder(SMALL), points.shape[1])
    batch = EncoderBatches(images, points, 32, 8)(np.arange(8), np.arange(8))
    opt = torch.optim.AdamW(model.head.parameters(), 2e-3)
    before = model(**batch)["error"].item()
    model(**batch)["loss"].backward(); opt.step()
    assert abs(model(**batch)["error"].item() - before) < .25


def test_cached_tokens_are_the_encoders_own_and_other_views_differ():
    torch.manual_seed(0)
    images, done = np.random.default_rng(0).integers(0, 255, (5, 40, 40, 3), dtype=np.uint8), []
    enc = DrawnEncoder(SMALL).eval()
    views = encode_views(enc, images, 5, 2, batch=2, progress=done.append)
    with torch.no_grad(): direct = enc(evaluation_view(torch.from_numpy(images), 32)).numpy()
    assert views.shape == (2, 5, 65, 24) and np.abs(views[0] - direct).max() < 1e-2 and done == [2, 4, 5]
    assert not np.array_equal(views[0], views[1]) and np.array_equal(views, encode_views(enc, images, 5, 2, batch=2))


def test_step2_on_cached_tokens_is_step2():
    torch.manual_seed(0)
    qf = QFormer(QFormerConfig(len(TOK), 24, 32, 2, 2, 64, queries=4))
    net = ExpressionCaptioner(DrawnEncoder(SMALL), qf, small_opt(TOK, 32, 2, 2), TOK)
    pixels, (ids, mask) = torch.randn(2, 3, 32, 32), pad_rows(lm_rows(TOK, ["one face", "another face here"]), TOK.pad_token_id)
    frozen = FrozenStep2(net).eval()
    with torch.no_grad(): assert torch.allclose(frozen(net.encoder(pixels), ids, mask)["loss"], net(pixels, ids, mask)["loss"], atol=1e-5)
