"images: any file becomes upright RGB or one clear error; views are reproducible and a batch is its singles."
import numpy as np
import pytest
import torch
from PIL import Image

from expblip.images import CLIP_MEAN, CLIP_STD, ImageError, ImageStore, evaluation_view, normalise, read_image, training_view

torch.set_num_threads(1)


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (6, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode, value", (("L", 128), ("RGB", (128, 128, 128)), ("RGBA", (128, 128, 128, 255)), ("P", 7), ("CMYK", (0, 0, 0, 127))))
def test_every_mode_becomes_rgb(tmp_path, mode, value):
    file = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new(mode, (30, 50), value).save(file)
    got = read_image(file, 8)
    assert got.shape == (8, 8, 3) and got.dtype == np.uint8
    if mode != "P": assert np.abs(got.astype(int) - 128).max() <= 4


def test_exif_rotation_is_undone(tmp_path):
    wide = np.zeros((20, 40, 3), np.uint8); wide[:, :20] = 255  # left half white
    exif = Image.Exif(); exif[0x0112] = 6  # turn right to see it upright
    Image.fromarray(wide).save(tmp_path / "x.png", exif=exif)
    got = read_image(tmp_path / "x.png", 16)
    assert got[:5].min() > 200 and got[-5:].max() < 50  # white is on top now


@pytest.mark.parametrize("content", (b"", b"not a picture", None))
def test_what_cannot_be_read_is_named(tmp_path, content):
    file = tmp_path / "face.jpg"
    if content is None:
        Image.new("RGB", (64, 64)).save(file); content = file.read_bytes()[:200]  # cut off
    file.write_bytes(content)
    with pytest.raises(ImageError, match="face.jpg: cannot be read as a picture.*repair or remove"): read_image(file, 8)
    with pytest.raises(ImageError, match="gone.png"): read_image(tmp_path / "gone.png", 8)


def test_the_store_mixes_arrays_and_files_in_any_order(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", array)
    Image.fromarray(array[1]).save(tmp_path / "one.png")
    store = ImageStore(["images.npy:3", "one.png", "images.npy:0"], tmp_path, 8)
    got = store([2, 0, 1, 2])
    assert len(store) == 3 and np.array_equal(got.numpy(), array[[0, 3, 1, 0]])


@pytest.mark.parametrize("ref, fault", (
    ("images.npy:5", "images.npy: row 1 of the records asks for picture '5', but there are 5"), ("images.npy:x", "asks for picture 'x'"),
    ("cut.npy:0", "cut.npy: not a whole stack"), ("empty.npy:0", "empty.npy: not a whole"), ("no.npy:0", "no.npy: no such file")))
def test_a_bad_stack_is_one_clear_error(tmp_path, ref, fault):
    np.save(tmp_path / "images.npy", np.zeros((5, 8, 8, 3), np.uint8))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "images.npy").read_bytes()[:300]); (tmp_path / "empty.npy").touch()
    with pytest.raises(ImageError, match=fault) as caught: ImageStore(["images.npy:4", ref], tmp_path)
    assert "row 1 of the records" in str(caught.value) and "rerun the stage" in str(caught.value)


def test_normalising_is_clips(pictures):
    x = normalise(pictures)
    assert x.shape == (6, 3, 24, 24)
    for c in range(3): assert torch.allclose(x[:, c], (pictures[..., c].float() / 255 - CLIP_MEAN[c]) / CLIP_STD[c], atol=1e-6)


def test_the_evaluation_view_has_no_chance_and_a_batch_is_its_singles(pictures):
    whole = evaluation_view(pictures, 16)
    assert whole.shape == (6, 3, 16, 16) and torch.equal(whole, torch.cat([evaluation_view(p[None], 16) for p in pictures]))
    assert torch.equal(evaluation_view(pictures, 24), normalise(pictures))


def test_training_views_repeat_with_their_generator(pictures):
    view = lambda seed: training_view(pictures, 16, torch.Generator().manual_seed(seed))
    assert torch.equal(view(0), view(0)) and not torch.equal(view(0), view(1)) and view(0).shape == (6, 3, 16, 16)


def test_without_crop_and_flip_a_training_view_is_the_picture(pictures):
    x = training_view(pictures, 24, torch.Generator().manual_seed(0), scale=(1., 1.), flip=False)
    assert torch.allclose(x, normalise(pictures), atol=1e-4)


def test_about_half_is_mirrored_and_nothing_else(pictures):
    many = pictures[:1].expand(200, -1, -1, -1)
    x, plain = training_view(many, 24, torch.Generator().manual_seed(0), scale=(1., 1.)), normalise(pictures[:1])[0]
    same = [(v - plain).abs().max() < 1e-3 for v in x]
    turned = [(v.flip(-1) - plain).abs().max() < 1e-3 for v in x]
    assert all(a != b for a, b in zip(same, turned)) and 70 < sum(turned) < 130


@pytest.mark.parametrize("how", ["picture", "face"])
def test_cut_or_not_a_picture_is_decoded_in_one_way(tmp_path, how):
    "Sixteen bits are scaled, transparency lies on white, and floating-point pixels are refused, cut out or whole."
    from expblip.crops import FoundFace, crop_face
    def take(path):
        return read_image(path, 32) if how == "picture" else crop_face(path, 32, lambda p: [FoundFace((0, 0, 64, 64))]).picture
    Image.fromarray(np.full((64, 64), 0x4000, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((64, 64), 0.5, np.float32)).save(tmp_path / "float.tif")
    assert (take(tmp_path / "deep.png") == 0x40).all() and (take(tmp_path / "clear.png") == 255).all()
    with pytest.raises(ValueError, match="float.tif.*floating-point"): take(tmp_path / "float.tif")
