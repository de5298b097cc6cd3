"crops: the face of a photograph as an aligned square, and each reason why there is none; no photograph of ours is needed."
import subprocess
import sys

import matplotlib.cbook as cbook
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from expblip.crops import EYES, REDUCED, CropError, FoundFace, crop_all, crop_each, crop_face, haar_faces, open_upright
from expblip.fixtures import damage, save_picture, wild_faces

PLAIN = np.full((300, 400, 3), 90, np.uint8)


def saying(*boxes, eyes=None):
    return lambda picture: [FoundFace(box, eyes) for box in boxes]


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    "The one photograph that a package brings along: an official portrait in the public domain."
    return Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")


def test_import_is_light():
    code = "import sys, expblip.crops; print(*{'cv2', 'torch', 'pandas', 'PIL', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


# ---------------------------------------------------------------- files

@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "CMYK", "YCbCr", "RGBX"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    values = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))
    deep = {"I;16": np.uint16, "I": np.int32}.get(mode)
    image = Image.fromarray(values.astype(deep) * 257) if deep else Image.fromarray(values).convert("RGB" if mode == "RGBX" else "L").convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr", "RGBX", "I") else "a.png")
    image.save(path, compression="tiff_lzw" if mode == "YCbCr" else None)  # uncompressed YCbCr is read from Pillow 13 on
    read = open_upright(path)
    assert read.dtype == np.uint8 and read.shape == (48, 64, 3)
    assert mode == "1" or abs(read[:, 8:].astype(int) - values[:, 8:, None]).max() <= 2


def test_transparency_is_laid_on_white(tmp_path):
    image = Image.new("RGBA", (40, 40), (200, 0, 0, 0))
    image.paste((10, 20, 30, 255), (0, 0, 20, 40))
    image.save(tmp_path / "a.png")
    image.quantize(8).save(tmp_path / "palette.png")
    for name in ("a.png", "palette.png"):
        assert open_upright(tmp_path / name)[0, [0, 39]].tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize("tag", range(1, 9))
def test_exif_turns_upright(tmp_path, tag):
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:10, :10] = 255, 0, 0
    upright[-10:, :10] = 0, 255, 0
    laid = [None, None, 0, 3, 1, 5, 2, 6, 4][tag]  # what undoes the turn that the tag asks for
    image = Image.fromarray(upright) if laid is None else Image.fromarray(upright).transpose(Image.Transpose(laid))
    exif = Image.Exif()
    exif[0x0112] = tag
    image.save(tmp_path / "a.png", exif=exif)
    assert (open_upright(tmp_path / "a.png") == upright).all()


def test_what_cannot_be_read_is_named(tmp_path):
    good = save_picture(PLAIN, tmp_path / "a.jpg")
    for path, fault in ((damage(save_picture(PLAIN, tmp_path / "cut.jpg")), r"cut\.jpg: cannot be read as a picture \(OSError"),
                        (damage(save_picture(PLAIN, tmp_path / "empty.png"), "empty"), r"empty\.png: cannot be read as a picture"),
                        (tmp_path / "none.jpg", "no such file; correct the path"), (tmp_path, "cannot be read as a picture")):
        with pytest.raises(CropError, match=fault) as caught:
            crop_face(path)
        assert str(tmp_path) not in caught.value.fault
    assert open_upright(good).shape == PLAIN.shape
    Image.fromarray(np.zeros((50, 50), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(CropError, match="floating-point"):
        open_upright(tmp_path / "float.tif")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = save_picture(PLAIN, tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(CropError, match="400 x 300 pixels are more than 100000; save it smaller"):
        open_upright(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    with pytest.raises(CropError, match="DecompressionBombError"):
        open_upright(path)


# ---------------------------------------------------------------- geometry

def spot(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    "A soft spot at a place, as uint8."
    rows, columns = np.mgrid[:height, :width] + 0.5
    return (255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))).round().astype(np.uint8)


def middle(channel: np.ndarray) -> np.ndarray:
    "Where a spot is, (x, y) with the pixels' edges at whole numbers."
    rows, columns = np.mgrid[:channel.shape[0], :channel.shape[1]] + 0.5
    weight = np.where(channel > 20, channel, 0).astype(float)
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


@settings(max_examples=25, deadline=None)
@given(st.floats(90, 310), st.floats(90, 210), st.floats(15, 70), st.floats(-75, 75), st.sampled_from([64, 112, 224]), st.booleans())
def test_eyes_come_to_their_places(x, y, half, degrees, size, swapped):
    "Whatever place, distance and tilt: both eyes lie where EYES says, to a tenth of a pixel or a hundredth of their distance."
    off = half * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    eyes = [(x - off[0], y - off[1]), (x + off[0], y + off[1])]
    picture = np.stack([spot(300, 400, *eye, half / 9) for eye in (*eyes, (-99, -99))], 2)
    crop = crop_face(picture, size, saying((x - 60, y - 60, 120, 120), eyes=tuple(eyes[::-1] if swapped else eyes)))
    assert crop.how == "eyes" and crop.picture.shape == (size, size, 3) and crop.picture.dtype == np.uint8
    for channel, place in zip((0, 1), EYES):
        assert np.abs(middle(crop.picture[..., channel]) - np.multiply(place, size)).max() < max(0.1, 0.01 * 0.28 * size) + 0.35


def test_without_eyes_the_frame_is_the_same():
    "A box frames like the eyes that are usual in it."
    picture = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    box = (150.0, 90.0, 120.0, 120.0)
    usual = ((150 + 0.305 * 120, 90 + 0.397 * 120), (150 + 0.693 * 120, 90 + 0.397 * 120))
    by_box, by_eyes = (crop_face(picture, 96, saying(box, eyes=eyes)) for eyes in (None, usual))
    assert (by_box.how, by_eyes.how) == ("box", "eyes") and by_box.eyes is None and by_box.box == box
    assert (by_box.picture == by_eyes.picture).all()


@pytest.mark.parametrize("height, width", [(200, 800), (800, 200), (300, 300)])
@pytest.mark.parametrize("how", ["box", "whole"])
def test_a_disc_stays_a_disc(height, width, how):
    rows, columns = np.mgrid[:height, :width]
    disc = (np.hypot(rows - height / 2, columns - width / 2) < 60).astype(np.uint8)[..., None].repeat(3, 2) * 255
    found = saying((width / 2 - 60, height / 2 - 60, 120, 120)) if how == "box" else saying()
    crop = crop_face(disc, 180, found, none="whole")
    extent = [np.ptp(np.flatnonzero(crop.picture[..., 0].max(axis) > 127)) for axis in (0, 1)]
    assert crop.how == how and abs(extent[0] - extent[1]) <= 1


def test_over_the_edge_the_edge_is_repeated():
    picture = PLAIN.copy()
    picture[:, :200] = 200
    crop = crop_face(picture, 64, saying((0, 0, 90, 90)))
    assert (crop.picture == 200).all()
    with pytest.raises(CropError, match="outside the picture"):
        crop_face(PLAIN, 64, saying((5000, 0, 90, 90)))


def test_a_fine_pattern_does_not_flicker():
    "One white pixel in four becomes an even grey, since a large square is averaged down."
    picture = np.zeros((1200, 1200, 3), np.uint8)
    picture[::2, ::2] = 200
    crop = crop_face(picture, 64, saying(), none="whole")
    assert np.abs(crop.picture.astype(int) - 50).max() <= 6


# ---------------------------------------------------------------- stated behaviours

@pytest.mark.parametrize("boxes, options, fault", [
    ([], {}, "no face was found; use a picture in which somebody looks at the camera"),
    ([(9, 9, 47, 47)], {}, "the largest face is 47 x 47 pixels, 48 are needed"),
    ([(9, 9, 47, 47)], {"none": "whole"}, "the largest face is 47 x 47"),
    ([(9, 9, 100, 100), (200, 9, 110, 110)], {}, "2 faces of nearly the same size; .*many=largest"),
    ([(9, 9, 100, 100), (200, 9, 110, 110), (99, 99, 100, 100), (99, 99, 50, 50)], {}, "3 faces of nearly"),
    ([], {"none": "whole", "min_side": 301}, "the picture is 400 x 300 pixels, 301 are needed"),
])
def test_faults(boxes, options, fault):
    with pytest.raises(CropError, match=f"the picture: {fault}"):
        crop_face(PLAIN, 64, saying(*boxes), **options)


def test_the_largest_face_is_taken_when_it_is_clear_which():
    clear = saying((9, 9, 80, 80), (200, 9, 98, 98))
    assert crop_face(PLAIN, 64, clear).box == (200, 9, 98, 98)
    like = saying((9, 9, 81, 81), (200, 9, 98, 98))
    with pytest.raises(CropError, match="2 faces"):
        crop_face(PLAIN, 64, like)
    assert crop_face(PLAIN, 64, like, many="largest").box == (200, 9, 98, 98)


def test_without_a_face_the_centre_square_if_asked():
    picture = PLAIN.copy()
    picture[:, :50] = picture[:, 350:] = 255
    crop = crop_face(picture, 100, saying(), none="whole")
    assert crop.how == "whole" and crop.box is None and (crop.picture == 90).all()


@pytest.mark.parametrize("bad, fault", [
    (PLAIN / 255, "is float64"), (PLAIN[..., 0], r"is uint8 \[300, 400\]"), (PLAIN[..., [0, 1, 2, 2]], "uint8 RGB")])
def test_an_array_must_be_rgb(bad, fault):
    with pytest.raises(CropError, match=fault):
        crop_face(bad, 64, saying((9, 9, 90, 90)))


@pytest.mark.parametrize("option", [{"none": "skip"}, {"many": "all"}])
def test_an_unknown_option_is_no_fault_of_the_picture(option):
    with pytest.raises(ValueError, match="'fault' or 'whole'") as caught:
        crop_face(PLAIN, **option)
    assert not isinstance(caught.value, CropError)


def test_an_error_of_the_detector_is_not_hidden():
    def broken(picture): raise ValueError("mine")
    with pytest.raises(ValueError, match="^mine$") as caught:
        crop_face(PLAIN, detector=broken)
    assert not isinstance(caught.value, CropError)


def test_a_large_picture_is_searched_on_a_small_copy():
    seen = []

    def detector(picture):
        seen.append(picture.shape)
        return [FoundFace((100, 50, 200, 200), ((160, 130), (240, 130)))]
    picture = np.zeros((1500, 3000, 3), np.uint8)
    picture[:, 600:] = 250
    crop = crop_face(picture, 64, detector)
    back = 3000 / REDUCED
    assert seen == [(512, 1024, 3)] and np.allclose(crop.box, np.multiply((100, 50, 200, 200), back), rtol=0.01)
    assert np.allclose(crop.eyes, np.multiply([(160, 130), (240, 130)], back), rtol=0.01)
    edge = 64 * (0.36 + 0.28 * (600 / back - 160) / 80)  # where the bright part begins in the crop
    assert abs(np.flatnonzero(crop.picture[32, :, 0] > 125)[0] - edge) <= 1


# ---------------------------------------------------------------- the detector

def test_a_real_face_is_found_and_aligned(portrait):
    crop = crop_face(np.asarray(portrait))
    assert crop.how == "eyes" and np.allclose(crop.eyes, [(221, 192), (306, 187)], atol=8)
    assert np.allclose(haar_faces(crop.picture)[0].eyes, np.multiply(EYES, 224), atol=8)


@pytest.mark.parametrize("degrees", [-10, 10])
def test_a_tilted_head_is_levelled(portrait, degrees):
    def tilt(eyes): return np.degrees(np.arctan2(eyes[1][1] - eyes[0][1], eyes[1][0] - eyes[0][0]))
    level, tilted = (crop_face(np.asarray(one)) for one in (portrait, portrait.rotate(degrees, Image.Resampling.BICUBIC)))
    assert abs(tilt(tilted.eyes) - tilt(level.eyes) + degrees) < 4, "so much did the picture turn"
    assert np.allclose(haar_faces(tilted.picture)[0].eyes, np.multiply(EYES, 224), atol=8), "and so much is it turned back"


def test_the_same_face_from_any_file(portrait, tmp_path):
    picture = np.asarray(portrait)
    crops = {kind: crop_face(save_picture(picture, tmp_path / f"{kind}.jpg", kind)) for kind in ("plain", "grey", "cmyk", "turned")}
    assert {crop.how for crop in crops.values()} == {"eyes"}
    assert all(np.allclose(crop.eyes, crops["plain"].eyes, atol=6) for crop in crops.values())
    assert np.ptp(crops["grey"].picture, axis=2).max() == 0


def test_a_face_among_others_or_too_small(portrait):
    half = portrait.resize((256, 300))
    two = np.hstack([np.asarray(half), np.asarray(half)])
    with pytest.raises(CropError, match="2 faces of nearly the same size"):
        crop_face(two)
    canvas = Image.new("RGB", (900, 600), (120, 130, 140))
    canvas.paste(half, (600, 200))
    canvas.paste(portrait, (0, 0))
    assert crop_face(np.asarray(canvas)).box[0] < 512, "the nearer one"
    with pytest.raises(CropError, match=r"the largest face is \d\d x \d\d pixels, 48 are needed"):
        crop_face(np.asarray(portrait.resize((102, 120))))


def test_a_face_in_a_large_photograph(portrait):
    canvas = Image.new("RGB", (4000, 3000), (120, 130, 140))
    canvas.paste(portrait.resize((1024, 1200)), (1500, 900))
    crop = crop_face(np.asarray(canvas))
    assert crop.how == "eyes" and np.allclose(crop.eyes, np.array([(442, 384), (612, 374)]) + (1500, 900), atol=25)


def test_where_nobody_is_nobody_is_found():
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    for picture in (PLAIN, noise):
        with pytest.raises(CropError, match="no face was found"):
            crop_face(picture)


def test_a_drawn_face_on_a_larger_canvas_is_found():
    found = []
    for shown in wild_faces(6, size=224):
        canvas = np.full((500, 700, 3), 128, np.uint8)
        canvas[200:424, 300:524] = shown.picture
        found += [face.box for face in haar_faces(canvas) if face.box[2] > 100]
    assert len(found) >= 3, 'most of them'
    assert all(abs(left + width / 2 - 412) < 40 and abs(top + height / 2 - 312) < 40 for left, top, width, height in found)


# ---------------------------------------------------------------- many

def test_all_faults_of_a_folder(tmp_path, portrait):
    good = save_picture(np.asarray(portrait), tmp_path / "good.jpg")
    paths = [good, tmp_path / "none.jpg", damage(save_picture(PLAIN, tmp_path / "cut.jpg")), good, save_picture(PLAIN, tmp_path / "nobody.png")]
    crops, faults = crop_all(paths, 64, workers=3)
    assert [crop and crop.how for crop in crops] == ["eyes", None, None, "eyes", None]
    assert faults["image"].tolist() == [str(paths[i]) for i in (1, 2, 4)] and list(faults) == ["image", "fault"]
    assert [text.split()[0] for text in faults["fault"]] == ["no", "cannot", "no"]
    assert (crops[0].picture == crop_face(good, 64).picture).all(), "threads change nothing"
    assert crop_all([], 64)[1].empty and list(crop_all([], 64)[1]) == ["image", "fault"]


def test_a_wrong_option_stops_all(tmp_path):
    with pytest.raises(ValueError, match="'fault' or 'whole'"):
        list(crop_each([save_picture(PLAIN, tmp_path / "a.png")], none="skip"))


def test_opencv_may_be_asked_for_in_many_threads_at_once():
    "Its own import is not safe in threads: some saw half a module."
    code = ("from concurrent.futures import ThreadPoolExecutor; import numpy as np; from expblip.crops import haar_faces\n"
            "with ThreadPoolExecutor(8) as pool: print(list(pool.map(haar_faces, [np.zeros((99, 99, 3), np.uint8)] * 64)) == [[]] * 64)")
    for _ in range(3):
        got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert got.stdout == "True\n", got.stderr[-800:]
