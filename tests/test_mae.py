"mae: the loss falls, a stopped training goes on exactly, and the file is that of MAE's own code: read back, the encoder says the same."
import random

import numpy as np
import pytest
import torch
from test_resume import Pictures

from expblip import io
from expblip.config import ConfigError, check_params, stage_config
from expblip.encoders import build_encoder
from expblip.mae import MAEBatches, MaskedAutoencoder, mae_state, reconstructions, write_mae
from expblip.models import ENCODERS, ModelSize, build
from expblip.qformer import QFormerConfig
from expblip.training import Plan, fit
from expblip.weights import load_weights, read_weights

torch.set_num_threads(1)
TINY = dict(size=32, patch=8, width=32, layers=2, heads=2, decoder_width=32, decoder_layers=1, decoder_heads=2)


def smooth():
    "Forty pictures with something to learn: a bright disc on a slope."
    y, x = np.mgrid[:48, :48]
    out = []
    for k in range(40):
        r = random.Random(k)
        disc = (x - r.uniform(10, 38))**2 + (y - r.uniform(10, 38))**2 < r.uniform(40, 160)
        out.append(np.stack([(x * r.uniform(0, 3) + y * r.uniform(0, 3)) + 80 * disc] * 3, -1).clip(0, 255))
    store = Pictures()
    store.data = np.stack(out).astype("uint8")
    return store


def train(steps=60, folder=None, make=None, **changes):
    torch.manual_seed(0)
    net = MaskedAutoencoder(**TINY)
    batches = MAEBatches(smooth(), np.arange(40), 32, net.patches)
    plan = Plan(**(dict(steps=steps, batch=20, lr=2e-3, warmup=5, every=1, window=1, betas=(.9, .95)) | changes))
    named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    return net, fit(net, named, make(batches) if make else batches, np.ones(40), plan, "MAE", resume=folder, save_every=0)


def test_the_loss_falls_and_positions_stay():
    net, run = train(150)
    first, last = (np.mean([x["loss"] for x in part]) for part in (run["log"][:5], run["log"][-5:]))
    assert first > .9 and last < .75 * first
    torch.manual_seed(0)
    fresh = MaskedAutoencoder(**TINY)
    assert torch.equal(net.model.vit.embeddings.position_embeddings, fresh.model.vit.embeddings.position_embeddings)
    x = MAEBatches(smooth(), np.arange(40), 32, 16)(np.arange(4), np.arange(4))
    faces, seen, guess = reconstructions(net, x["pixels"], x["noise"])
    hidden = ~(seen == faces).all(-1)
    assert hidden.float().mean((1, 2)).tolist() == [.75] * 4
    _, _, blind = reconstructions(fresh, x["pixels"], x["noise"])
    assert (guess - faces)[hidden].square().mean() < (blind - faces)[hidden].square().mean() and torch.equal(guess[~hidden], faces[~hidden])


def test_stopped_and_gone_on_it_is_bit_identical(tmp_path):
    class Cut(Exception): pass
    whole = train(12, tmp_path / "a")[0].state_dict()
    def dies(batches):
        made = iter(range(99))
        class Dying(MAEBatches):
            def __call__(self, i, at):
                if next(made) == 9: raise Cut
                return super().__call__(i, at)
        batches.__class__ = Dying
        Dying.__module__, Dying.__qualname__ = MAEBatches.__module__, MAEBatches.__qualname__
        return batches
    with pytest.raises(Cut): train(12, tmp_path / "b", dies)
    assert len(list((tmp_path / "b").glob("*.json"))) == 2
    again = train(12, tmp_path / "b")[0].state_dict()
    assert all(torch.equal(v, again[k]) for k, v in whole.items())


def test_the_file_is_read_back_by_name_with_equal_features(tmp_path):
    net, _ = train(3)
    small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, image_size=32, patch_size=8)
    shape = ENCODERS["mae_vit_b"] | small
    assert net.encoder_shape() == shape
    found = read_weights(write_mae(tmp_path / "mae.pth", net))
    assert found.layout == "MAE" and any(k.startswith("decoder_blocks.0.attn.qkv") for k in found.left)
    encoder = build_encoder(shape)
    report = load_weights(found, encoder)
    assert list(report.filled) == ["image encoder"] and not report.stayed
    x = torch.randn(3, 3, 32, 32)
    vit = net.eval().model.vit
    vit.config.mask_ratio = 0.
    with torch.no_grad():
        whole = vit(x, noise=torch.arange(16.).expand(3, -1)).last_hidden_state
        assert torch.allclose(encoder(x), whole, atol=1e-5) and whole.shape == (3, 17, 32)
        moved = x.clone(); moved[:, :, 8:16, 24:32] += 1.  # row 1, column 3 of the patches: token 1 + 1 * 4 + 3
        change = (encoder.model.embeddings(moved) - encoder.model.embeddings(x)).abs().sum((0, 2))
        assert change.nonzero()[:, 0].tolist() == [8]


def test_the_layout_is_that_of_mae_s_code_at_full_size():
    "Names and shapes of mae_pretrain_vit_base.pth (visualisation file, with decoder), without any weights."
    with torch.device("meta"): net = MaskedAutoencoder()
    state = {k: tuple(v.shape) for k, v in mae_state(net).items()}
    def block(name, w): return {f"{name}.norm1.weight": (w,), f"{name}.norm1.bias": (w,), f"{name}.norm2.weight": (w,), f"{name}.norm2.bias": (w,),
        f"{name}.attn.qkv.weight": (3 * w, w), f"{name}.attn.qkv.bias": (3 * w,), f"{name}.attn.proj.weight": (w, w), f"{name}.attn.proj.bias": (w,),
        f"{name}.mlp.fc1.weight": (4 * w, w), f"{name}.mlp.fc1.bias": (4 * w,), f"{name}.mlp.fc2.weight": (w, 4 * w), f"{name}.mlp.fc2.bias": (w,)}
    want = {"cls_token": (1, 1, 768), "pos_embed": (1, 197, 768), "patch_embed.proj.weight": (768, 3, 16, 16), "patch_embed.proj.bias": (768,),
            "norm.weight": (768,), "norm.bias": (768,), "mask_token": (1, 1, 512), "decoder_pos_embed": (1, 197, 512),
            "decoder_embed.weight": (512, 768), "decoder_embed.bias": (512,), "decoder_norm.weight": (512,), "decoder_norm.bias": (512,),
            "decoder_pred.weight": (768, 512), "decoder_pred.bias": (768,)}
    for i in range(12): want |= block(f"blocks.{i}", 768)
    for i in range(8): want |= block(f"decoder_blocks.{i}", 512)
    assert state == want


def test_a_start_takes_the_file(tmp_path):
    net, _ = train(3)
    write_mae(tmp_path / "mae.pth", net)
    io.write_json(tmp_path / "encoder/config.json", net.encoder_shape())
    from transformers import OPTConfig
    OPTConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, ffn_dim=16, num_attention_heads=2).save_pretrained(tmp_path / "opt")
    size = ModelSize(str(tmp_path / "encoder"), str(tmp_path / "opt"), QFormerConfig(10, 32, 32, 2, 2, 64, queries=4))
    _, captioner = build(size)
    assert load_weights(tmp_path / "mae.pth", captioner).filled["image encoder"] == len(captioner.encoder.state_dict())


def test_numbers_of_the_paper_and_faults():
    cfg = stage_config("mae", scale="base", device="cpu")
    said = dict(size=224, patch=16, width=768, layers=12, heads=12, decoder_width=512, decoder_layers=8, decoder_heads=16, mask=.75, epochs=200,
                warmup_epochs=40, lr=1.5e-4, beta2=.95, weight_decay=.05, steps=0)
    assert {k: getattr(cfg, k) for k in said} == said
    with pytest.raises(ConfigError, match="size 100 is no multiple of patch 8; change one of them"): check_params("mae", dict(size=100))
    with pytest.raises(ValueError, match="cannot be cut into patches of 16: change size or patch"): MaskedAutoencoder(100, 16)
