"""Pictures, arrays and data sets as people have them: read right, or refused in one line.

The independent reading of a picture is made from the numbers that were written: on white by hand,
turned by NumPy, scaled by PIL at 8 bits.
"""

import io
import struct
import sys
import time
import unicodedata
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    get_worker_info,
    random_split,
)

import cka_nb as cka
from cka_nb.data import TensorImages, Unlabelled, numbered_batches
from cka_nb.images import as_image
from cka_nb.labels import ClassSubset, class_names_of, label_of, labelled, labels_of

CPU = torch.device("cpu")


def told(action):
    """The warnings of a call, as text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(w.message) for w in caught]


# pictures: modes x containers x sizes

TURNS = {1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud,
         5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, -1),
         7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: np.rot90}


def png(values, depth, colour, key=None, palette=None):
    """A PNG file, byte by byte: Pillow writes few of the kinds there are."""
    def chunk(kind, data):
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    height, width = values.shape[:2]
    rows = b""
    for row in values:
        bits = "".join(format(int(v), f"0{depth}b") for v in row.ravel())
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), (b"PLTE", palette), (b"tRNS", key), (b"IDAT", zlib.compress(rows)),
             (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(k, d) for k, d in parts if d is not None)


def own_png(chance, height, width):
    """A PNG of any kind, and what it shows: red, green, blue, alpha, each (H, W, 4) in [0, 1]."""
    colour = int(chance.choice([0, 2, 3, 4, 6]))
    depth = int(chance.choice({0: [1, 2, 4, 8, 16], 3: [1, 2, 4, 8]}.get(colour, [8, 16])))
    bands, most = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour], 2**depth - 1
    few = chance.integers(0, most + 1, (int(chance.integers(2, 9)), bands))
    values = few[chance.integers(0, len(few), (height, width))]  # a key is met more than once
    shown, key, palette, alpha = values / most, None, None, np.ones((height, width, 1))
    if colour in (4, 6):
        shown, alpha = shown[..., :-1], shown[..., -1:]
    if colour == 3:
        table = chance.integers(0, 256, (most + 1, 3))
        palette, shown = table.astype("u1").tobytes(), table[values[..., 0]] / 255
    if chance.random() < .6 and colour in (0, 2):
        clear = few[0]
        if depth == 16 and colour == 2:  # Pillow keeps 8 bits of each
            clear, top = few[0], values >> 8
            alpha = (top != clear >> 8).any(2, keepdims=True) * 1.
        else:
            alpha = (values != clear).any(2, keepdims=True) * 1.
        key = struct.pack(f">{bands}H", *map(int, clear))
    if chance.random() < .7 and colour == 3:
        table = [255] * (most + 1)
        if chance.random() < .5:
            table = table[:int(values[0, 0, 0])] + [0]
        else:
            table = chance.integers(0, 256, int(chance.integers(1, most + 2))).tolist()
        key, full = bytes(table), np.array(table + [255] * (most + 1 - len(table)))
        alpha = full[values] / 255
    grey = colour == 0
    shown = np.concatenate([shown if shown.shape[2] == 3 else shown.repeat(3, 2), alpha], 2)
    return png(values, depth, colour, key, palette), shown, grey, f"png {colour}:{depth}"


SAVED = {"png": ["L", "LA", "RGB", "RGBA", "P", "1", "I;16"], "gif": ["L", "P", "1"],
         "webp": ["RGB", "RGBA"], "bmp": ["L", "RGB", "P", "1"],
         "tiff": ["L", "LA", "RGB", "RGBA", "P", "PA", "1", "CMYK", "YCbCr", "LAB", "I;16", "F"],
         "tga": ["L", "LA", "RGB", "RGBA", "P"], "jpeg2000": ["L", "LA", "RGB", "RGBA", "I;16"],
         "ppm": ["L", "RGB", "1", "F"], "jpeg": ["L", "RGB", "CMYK"], "avif": ["RGB", "RGBA"]}
ENDINGS = {"jpeg": "jpg", "jpeg2000": "jp2", "tiff": "tif"}
NEEDS = {"webp": "webp", "avif": "avif", "jpeg2000": "jpg_2000"}
BUILT = [kind for kind in SAVED if kind not in NEEDS or features.check(NEEDS[kind])]


def by_pillow(chance, height, width):
    """A file that Pillow wrote, and what it shows."""
    kind = str(chance.choice(BUILT))
    mode, held = str(chance.choice(SAVED[kind])), io.BytesIO()
    colours = Image.fromarray(chance.integers(0, 256, (height, width, 4), dtype=np.uint8))
    deep = chance.integers(256, 65536, (height, width)).astype(np.uint16)
    options, turn = {}, 1
    if mode == "I;16":
        image, shown = Image.fromarray(deep), deep[..., None] / 65535
    elif mode == "F":
        shown = (deep / 65535).astype(np.float32)[..., None]
        image = Image.fromarray(shown[..., 0])
    elif mode in ("P", "PA"):
        table = chance.integers(0, 256, (16, 3))
        index = chance.integers(0, 16, (height, width), dtype=np.uint8)
        image, shown = Image.fromarray(index).convert("P"), table[index] / 255
        image.putdata(index.ravel().tolist())
        image.putpalette(table.astype("u1").tobytes())
        if mode == "PA":
            alpha = np.asarray(colours)[..., 3]
            with_alpha = Image.merge("LA", (Image.fromarray(index), Image.fromarray(alpha)))
            image = Image.frombytes("PA", image.size, with_alpha.tobytes())
            image.putpalette(table.astype("u1").tobytes())
            shown = np.concatenate([shown, alpha[..., None] / 255], 2)
        elif kind in ("gif", "png") and chance.random() < .7:
            options["transparency"] = int(index[0, 0])
            shown = np.concatenate([shown, (index != index[0, 0])[..., None] * 1.], 2)
    else:
        image = colours.convert({"LA": "LA", "RGBA": "RGBA"}.get(mode, "RGB")).convert(mode)
        rgb = mode in ("CMYK", "YCbCr", "LAB")
        shown = np.asarray(image.convert("RGB") if rgb else image) / (1 if mode == "1" else 255)
    shown = shown.reshape(height, width, -1)
    if shown.shape[2] < 3:
        shown = np.concatenate([shown[..., :1].repeat(3, 2), shown[..., 1:]], 2)
    if shown.shape[2] == 3:
        shown = np.concatenate([shown, np.ones((height, width, 1))], 2)
    if kind == "webp":
        options |= {"lossless": True, "exact": True}
    if kind in ("png", "webp", "jpeg") and chance.random() < .5:
        turn = int(chance.integers(1, 9))
        exif = Image.Exif()
        exif[0x112] = turn
        options["exif"] = exif
    if kind == "tiff" and chance.random() < .5:
        turn = int(chance.integers(1, 9))
        options["tiffinfo"] = {0x112: turn}
    if kind in ("gif", "png", "webp", "tiff") and chance.random() < .3 and mode != "I;16":
        options |= {"save_all": True, "append_images": [image.rotate(180)]}
    image.save(held, kind, **options)
    if kind in ("jpeg", "avif"):  # what is lost is lost for Pillow too
        read = Image.open(held)
        shown = np.asarray(read.convert("RGBA")) / 255
    grey = mode in ("L", "1", "I;16", "F")
    return held.getvalue(), TURNS[turn](shown), grey, f"{kind} {mode} turn {turn} {options}"


def deep(kind):
    return any(word in kind for word in ("0:16", " I;16 ", " F "))


def on_white(shown):
    """(H, W, 3) uint8 of (H, W, 4) in [0, 1]."""
    return (255 * (shown[..., :3] * shown[..., 3:] + 1 - shown[..., 3:])).round().astype(np.uint8)


def as_bytes(image):
    """(H, W, C) in 0..255 of an image tensor."""
    return (image.float() * (255 if image.is_floating_point() else 1)).permute(1, 2, 0).numpy()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pictures_of_every_kind_are_what_was_written(tmp_path):
    wrong, kinds = [], set()
    for seed in range(500):
        chance = np.random.default_rng(seed)
        height, width = (int(v) for v in chance.integers(5, 24, 2))
        data, shown, grey, kind = (own_png if seed % 2 else by_pillow)(chance, height, width)
        ending = kind.split()[0]
        file = tmp_path / f"{seed}.{ENDINGS.get(ending, ending)}"
        file.write_bytes(data)
        kinds.add(" ".join(kind.split()[:2]))
        right = on_white(shown)
        read = {"as it is": cka.ImageFiles([file])[0], "by Pillow": as_image(Image.open(file))}
        if ending != "tiff":  # Pillow itself garbles a turned one that is opened by its name
            with Image.open(file) as image:
                image.load()
                read["loaded"] = as_image(image)
        for how, image in read.items():
            if ending == "gif" and len(image) == 1:  # a grey palette
                image = image.expand(3, -1, -1)
            elif ending != "webp" and len(image) != (1 if grey else 3) and ending != "gif":
                wrong.append(f"{seed} {kind} {how}: {len(image)} channels")
            fits = image.shape[1:] == right.shape[:2]
            far = np.abs(as_bytes(image) - right).max() if fits else 999
            if far > 1.01 + (":16" in kind):  # colour and alpha are cut to 8 bits
                wrong.append(f"{seed} {kind} {how}: off by {far:.1f}")
        size = int(chance.choice([1, 3])), *(int(v) for v in chance.integers(3, 30, 2))
        scaled = Image.fromarray(right)
        if deep(kind):  # kept in floats, which are not rounded between rows and columns
            scaled = Image.fromarray((right[..., 0] / 255).astype(np.float32))
        scaled = ImageOps.fit(scaled, size[:0:-1])
        if size[0] == 1 and not deep(kind):
            scaled = scaled.convert("L")
        scaled = np.asarray(scaled).reshape(*size[1:], -1).clip(0, 255).astype(float)
        if deep(kind):
            scaled = scaled.clip(0, 1) * 255
        image = cka.ImageFiles([file], size)[0]
        far = np.abs(as_bytes(image) - scaled).max() if image.shape == size else 999
        if far > 2.01 + (":16" in kind):
            wrong.append(f"{seed} {kind} scaled to {size}: off by {far:.1f}")
    assert not wrong, "\n".join([f"{len(wrong)} of 500 differ", *wrong[:20]])
    assert len(kinds) > 45, sorted(kinds)


def test_modes_that_no_file_has():
    chance = np.random.default_rng(0)
    pixels = chance.integers(0, 256, (9, 7, 4), dtype=np.uint8)
    colours = Image.fromarray(pixels)
    right = on_white(pixels / 255)
    grey = on_white(np.concatenate([pixels[..., :1].repeat(3, 2), pixels[..., 3:]], 2) / 255)
    la = Image.merge("LA", (colours.getchannel(0), colours.getchannel(3)))
    for image, shown in ((colours, right), (colours.convert("RGBa"), right), (la, grey),
                         (la.convert("La"), grey)):
        assert np.abs(as_bytes(as_image(image)) - shown).max() <= 2
    for mode in ("HSV", "YCbCr", "LAB", "CMYK"):  # close to what they were made of
        soft = Image.fromarray(np.full((4, 4, 3), (200, 60, 90), np.uint8))
        assert np.abs(as_bytes(as_image(soft.convert(mode))) - np.asarray(soft)).max() < 4
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255, 0, 128], "RGBA")
    palette.putpixel((1, 0), 1)
    assert as_bytes(as_image(palette)).tolist() == [[[255, 255, 255], [127, 255, 127]]]
    for mode, byte in (("I;16B", ">u2"), ("I;16L", "<u2")):
        deep = Image.frombytes(mode, (2, 1), np.array([0, 40_000], byte).tobytes())
        assert torch.allclose(as_image(deep), torch.tensor([0, 40_000 / 65535]))


def test_frames_and_files_of_many_kinds_are_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for ending, more in (("gif", {}), ("tif", {}), ("png", {}), ("webp", {"lossless": True})):
        frames[0].save(tmp_path / f"x.{ending}", save_all=True, append_images=frames[1:], **more)
        assert cka.ImageFiles([tmp_path / f"x.{ending}"])[0][:, 0, 0].tolist() == [255, 0, 0]
        with Image.open(tmp_path / f"x.{ending}") as image:  # a frame that somebody chose
            image.seek(2)
            assert as_image(image)[:, 0, 0].tolist() == [0, 0, 255]


def test_deep_pictures_stay_in_range_when_they_are_scaled(tmp_path):
    edge = np.zeros((20, 20), np.uint16)
    edge[:, 10:] = 65535
    Image.fromarray(edge).save(tmp_path / "edge.png")
    image = cka.ImageFiles([tmp_path / "edge.png"], (1, 31, 31))[0]
    assert image.min() >= 0 and image.max() <= 1


# arrays and tensors

def test_arrays_and_tensors_are_read_by_their_shape():
    """Channels first or last where it is sure; else one line with the way out."""
    read = {(8, 9): (1, 8, 9), (8, 9, 1): (1, 8, 9), (8, 9, 3): (3, 8, 9), (3, 8, 9): (3, 8, 9),
            (1, 8, 9): (1, 8, 9), (9, 9, 13): (13, 9, 9), (9, 9, 200): (200, 9, 9)}
    for shape, tensor in read.items():
        array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        image = as_image(array)
        assert image.shape == tensor
        first = array[None] if array.ndim == 2 else (
            array if shape[0] in (1, 3) else array.transpose(2, 0, 1))
        assert (image.numpy() == first).all()
    for shape, cure in (((8, 9, 4), "Image.fromarray"), ((8, 9, 2), "Image.fromarray"),
                        ((4, 8, 9), "torch.from_numpy"), ((13, 64, 64), "torch.from_numpy"),
                        ((2, 3, 8, 9), "must have shape"), ((9,), "must have shape")):
        with pytest.raises(ValueError, match=cure):
            as_image(np.zeros(shape, np.uint8))
    for channels in (1, 2, 3, 4, 5, 13, 200):  # a tensor is taken at its word
        x = torch.rand(6, channels, 9, 10)
        assert Unlabelled(x).shape == Unlabelled(list(x)).shape == (channels, 9, 10)
    for shape in ((9, 128, 1), (64, 4, 4), (64, 2, 3), (1, 100, 3), (3, 100, 3)):
        assert Unlabelled(torch.rand(2, *shape)).shape == shape
    for x, cure in ((torch.rand(2, 32, 32, 3), "permute(0, 3, 1, 2)"),
                    (torch.rand(2, 28, 28, 1), "permute(0, 3, 1, 2)"),
                    (torch.rand(28, 28), "x[None, None]"), (torch.rand(3, 28, 28), "x[None]"),
                    (list(torch.rand(2, 32, 32, 3)), "permute(2, 0, 1)"),
                    (list(torch.rand(2, 28, 28)), "x[None] adds the channel"),
                    ([torch.rand(2, 3, 8, 8)], "torch.cat")):
        with pytest.raises(ValueError) as refused:
            Unlabelled(x)
        assert cure in str(refused.value)
    with pytest.raises(TypeError, match="torch.from_numpy"):
        TensorImages(np.zeros((2, 3, 8, 8), np.uint8))
    for kind in ("int64", "uint16", "bool"):
        with pytest.raises(TypeError, match="highest value"):
            as_image(np.zeros((8, 8), kind))


@pytest.mark.parametrize("shape", [(6, 3, 8, 9), (6, 8, 9, 3), (6, 8, 9), (6, 1, 8, 9),
                                   (6, 8, 9, 1)])
def test_an_array_of_images_is_a_data_set(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    array.setflags(write=False)
    right = array[:, None] if array.ndim == 3 else (
        array if shape[1] in (1, 3) else array.transpose(0, 3, 1, 2))
    assert not told(lambda: Unlabelled(array))
    assert (Unlabelled(array).read([4, 0]).numpy() == right[[4, 0]]).all()


def test_other_things_than_data_sets_get_a_cure(tmp_path):
    pandas = pytest.importorskip("pandas")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    paths, x = [tmp_path / "a.png"] * 3, torch.rand(4, 3, 8, 8)
    table = pandas.DataFrame({"path": [str(p) for p in paths], "label": [0, 1, 0]})
    sets = [({"train": list(x), "test": list(x)}, "choose a split: images['train']"),
            ({"image": list(x), "label": [0] * 4}, "choose a column: images['image']"),
            ({}, "choose a split"), (table, "cka.ImageFiles(images['path'])"),
            (table["path"], "cka.ImageFiles(images['path'])"), (set(x), "has no order"),
            (Image.new("L", (8, 8)), "one image is [image]"), (3, "got int"), (None, "NoneType"),
            (str(tmp_path), "cka.ImageFiles(folder)"), (paths[0], "cka.ImageFiles(folder)")]
    teacher = cka.Teacher(cka.SmallResNet(2), ["a", "b"])
    for given, cure in sets:
        for use in (Unlabelled, labelled, lambda d: cka.evaluate(teacher, d),
                    lambda d: cka.train_teacher(cka.SmallResNet(2), d)):
            with pytest.raises(TypeError) as refused:
                use(given)
            assert cure in str(refused.value) and "\n" not in str(refused.value)
    for given in (paths, [str(p) for p in paths], np.array([str(p) for p in paths])):
        with pytest.raises(TypeError, match="ImageFiles.paths. reads image files"):
            Unlabelled(given)
    for given in (table["path"], iter(paths), np.array([str(p) for p in paths]), tuple(paths)):
        assert len(cka.ImageFiles(given)) == 3 and cka.ImageFiles(paths)[0].shape == (3, 8, 8)
    for given in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8),
                  np.zeros((3, 8, 8), np.uint8)):
        with pytest.raises(ValueError, match="one image"):
            Unlabelled(given)
    with pytest.raises(ValueError, match="one file is a list of one"):
        cka.ImageFiles(paths[0])
    assert len(Unlabelled(image for image in x)) == len(Unlabelled(iter(x))) == 4
    with pytest.raises(TypeError, match="a labelled data set with a length, got generator: list"):
        cka.evaluate(teacher, ((image, 0) for image in x))
    assert not any(isinstance(v, TensorImages) for v in vars(Unlabelled(some(3, ["a"]))).values())
    with pytest.raises(ValueError, match="rename one of them"):
        Unlabelled([{"img": x[0]}])


# data sets of data sets

def some(count, names, first=0, labels=None):
    """Images that carry their number, and labels."""
    images = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
    images += torch.arange(first, first + count, dtype=torch.uint8)[:, None, None, None]
    labels = torch.arange(count) % len(names) if labels is None else torch.tensor(labels)
    return TensorImages(images, labels, names)


def names_of_images(dataset):
    """What each image is called, by its own number, as an evaluation reads it."""
    fits = labelled(dataset)
    names = class_names_of(fits)
    assert class_names_of(dataset) == names and labels_of(dataset) == labels_of(fits)
    read = [(int(Unlabelled(fits)[i][0, 0, 0]), names[label_of(fits[i])]) for i in range(len(fits))]
    assert [names[y] for y in labels_of(fits)] == [name for _, name in read]
    return read


class Own(Dataset):
    """Items one by one, labels nowhere else; names if there are any."""

    def __init__(self, dataset, names=None, as_dict=None, changed=int):
        self.inside, self.as_dict, self.changed = dataset, as_dict, changed
        if names:
            self.classes = names

    def __len__(self):
        return len(self.inside)

    def __getitem__(self, i):
        image, label = self.inside[i]
        label = self.changed(label)
        return {"image": image, self.as_dict: label} if self.as_dict else (image, label)


class Wrapper(Own):
    """As `Own`, but the set inside is called as torch calls it."""

    def __init__(self, dataset, names=None, as_dict=None, changed=int):
        super().__init__(dataset, names, as_dict, changed)
        self.dataset = dataset


def test_joined_sets_keep_each_image_its_name_whatever_is_nested():
    """500 random trees of Subset, ConcatDataset, random_split and wrappers."""
    for seed in range(500):
        chance = np.random.default_rng(seed)
        true, made = {}, 0

        def leaf():
            nonlocal made
            names = [str(n) for n in chance.permutation(list("abcde"))[:chance.integers(1, 4)]]
            data = some(int(chance.integers(1, 5)), names, made)
            for i in range(len(data)):
                true[made + i] = names[int(data.labels[i])]
            made += len(data)
            kind = chance.integers(4)
            if kind == 3:
                return cka.ClassSubset(data, [names[int(data.labels[0])]])
            return data if kind == 0 else Own(data, names, [None, "label", "labels"][
                chance.integers(3)]) if kind == 1 else Wrapper(data)

        def tree(depth):
            kind = chance.integers(5) if depth else 0
            if kind == 0:
                return leaf()
            if kind in (1, 2):
                return ConcatDataset([tree(depth - 1) for _ in range(chance.integers(1, 4))])
            inside = tree(depth - 1)
            if kind == 3:
                return random_split(inside, [len(inside)])[0]
            return Subset(inside, chance.integers(0, len(inside), chance.integers(1, 5)).tolist())

        data = tree(3)
        read = names_of_images(data)
        assert len(read) == len(data) and all(true[number] == name for number, name in read), seed
        kept = sorted({name for _, name in read})[:2]
        chosen = cka.ClassSubset(data, kept)
        assert [kept[y] for y in chosen.labels] == [name for _, name in read if name in kept]


def test_joined_sets_are_judged_and_trained_on_as_one():
    images = torch.zeros(40, 1, 8, 8)
    images[torch.arange(40), 0, torch.arange(40) % 4 * 2] = 1
    labels = torch.arange(40) % 4
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    model[1].weight.data = torch.stack([torch.zeros(8, 8).index_fill_(0, torch.tensor(2 * c), 1.)
                                        for c in range(4)]).flatten(1)
    teacher = cka.Teacher(model, list("abcd"))
    parts = [TensorImages(images[labels // 2 == k], labels[labels // 2 == k] - 2 * k,
                          list("abcd")[2 * k:2 * k + 2]) for k in (1, 0)]
    both = ConcatDataset(parts)
    for data in (both, DataLoader(both, 7), Subset(both, range(5, 35)),
                 ConcatDataset([both, *parts])):
        assert cka.evaluate(teacher, data)["joint"] == 1
    taught = cka.train_teacher(model, both, epochs=1, device="cpu")
    assert taught.classes == list("cdab") and cka.evaluate(taught, both)["count"] == 40
    model[1] = torch.nn.Linear(64, 2)
    assert cka.train_teacher(model, both, ["d", "a"], epochs=1, device="cpu").classes == ["d", "a"]


def test_names_that_may_not_fit_are_refused():
    data = some(6, list("abc"))
    accents = [some(2, [unicodedata.normalize(form, "é"), "x"]) for form in ("NFC", "NFD")]
    half = Wrapper(data)
    half.__class__ = type("Half", (Wrapper,), {"__len__": lambda self: 3})
    turned = some(6, list("abc"))
    turned.target_transform = lambda y: 2 - y
    listed = some(6, list("abc"))
    listed.classes = {"a": 0, "b": 1, "c": 2}
    joint = Own(data, list("abc"), changed=lambda y: 2 - y)
    joint.transforms, joint.targets = (lambda image, label: (image, 2 - label)), [0, 1, 2, 0, 1, 2]
    for odd, cure in ((ConcatDataset([data, Own(data)]), "part 1 of the ConcatDataset has no"),
                      (ConcatDataset(accents), "look the same: rename one"),
                      (Wrapper(data, changed=lambda y: 2 - y), "item 0 of the Wrapper has label 2"),
                      (half, "the Half has 3 items, its .dataset 6"),
                      (Wrapper(ConcatDataset([data, some(3, ["d"])])), "wrap each, then join them"),
                      (turned, "makes label 2 of label 0"), (joint, "transforms of the Own make"),
                      (listed, "must be a list of names")):
        for use in (class_names_of, lambda d: ClassSubset(d, ["a"])):
            with pytest.raises((ValueError, TypeError)) as refused:
                use(odd)
            assert cure in str(refused.value) and "\n" not in str(refused.value), cure
    named = Wrapper(data, names=list("cba"), changed=lambda y: 2 - y)  # its own names count
    assert [name for _, name in names_of_images(named)] == list("abcabc")
    renamed = Subset(data, range(6))
    renamed.classes = ["A", "B", "C"]
    assert [name for _, name in names_of_images(renamed)] == list("ABCABC")
    joined = ConcatDataset([data, some(3, ["d", "a"], 6)])
    joined.classes = list("dcba")  # in an order of one's own
    assert [name for _, name in names_of_images(joined)] == list("abcabcdad")
    joined.classes = list("abc")
    with pytest.raises(ValueError, match="lacks 'd' of its parts"):
        labelled(joined)
    same = some(6, list("abc"))
    same.target_transform = lambda y: torch.tensor(y)
    assert class_names_of(same) == list("abc")
    # what needs nothing is left alone, so that it stays as fast as it was
    for its in (data, Subset(data, [1]), ConcatDataset([data, data]), Own(data), named):
        assert labelled(its) is its


def test_labels_that_are_no_index_of_their_part():
    for odd in (-1, 2):
        joined = ConcatDataset([some(2, ["a", "b"]), some(1, ["c", "d"], labels=[odd])])
        for use in (labels_of, lambda d: labelled(d)[2]):
            with pytest.raises(ValueError, match=f"label {odd} is no index of the 2 classes"):
                use(joined)


def test_stacked_sets():
    images, labels = [x for x, _ in some(4, ["a"])], Numbers([0, 1, 1, 0])
    for stacked in (StackDataset(images, labels), StackDataset(image=images, label=labels),
                    StackDataset(pixel_values=images, labels=labels)):
        assert labels_of(stacked) == [0, 1, 1, 0] and class_names_of(stacked) == ["cat", "dog"]
        assert Unlabelled(stacked).shape == (1, 4, 4)
    assert class_names_of(StackDataset(images, [0, 1, 1, 0])) is None
    assert labels_of(TensorDataset(torch.rand(3, 1, 2, 2), torch.tensor([2, 0, 1]))) == [2, 0, 1]


class Numbers(list):
    classes = ["cat", "dog"]


def test_sets_of_torchvision(tmp_path):
    from torchvision.datasets import FakeData, ImageFolder
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for k in range(3):
            Image.new("RGB", (8, 8), (k, k, k)).save(tmp_path / name / f"{k}.png")
    folder = ImageFolder(tmp_path)
    assert class_names_of(folder) == ["ant", "bee"] and labels_of(folder) == [0] * 3 + [1] * 3
    both = ConcatDataset([folder, Subset(cka.ImageFiles(tmp_path), [5, 0]), some(2, ["cow"])])
    assert labels_of(both) == [0] * 3 + [1] * 3 + [1, 0] + [2, 2]
    for change, fits in ((int, True), (torch.tensor, True), (lambda y: 1 - y, False),
                         ({0: 1, 1: 0}.get, False), ({1: 0}.__getitem__, False)):
        changed = ImageFolder(tmp_path, target_transform=change)
        if fits:
            assert class_names_of(Subset(changed, [5])) == ["ant", "bee"]
            assert labels_of(Subset(changed, [5, 0])) == [1, 0]
        else:
            with pytest.raises(ValueError, match="target_transform of the ImageFolder makes label"):
                class_names_of(Subset(changed, [5]))
    assert labels_of(FakeData(3, (3, 8, 8), 4)) == [label_of(FakeData(3, (3, 8, 8), 4)[i])
                                                    for i in range(3)]


def test_sets_of_hugging_face():
    hub = pytest.importorskip("datasets")

    def made(names, column="label"):
        pictures = [Image.new("L", (4, 4), k) for k in range(4)]
        kinds = hub.Features({"image": hub.Image(), column: hub.ClassLabel(names=names)})
        return hub.Dataset.from_dict({"image": pictures, column: [0, 1, 1, 0]}, features=kinds)

    data = made(["ant", "bee"])
    right = [(0, "ant"), (1, "bee"), (2, "bee"), (3, "ant")]
    pixels = lambda rows: [np.asarray(image) for image in rows["image"]]  # noqa: E731
    kept = lambda rows: {"pixel_values": pixels(rows), "label": rows["label"]}  # noqa: E731
    turned = lambda rows: {"image": pixels(rows),  # noqa: E731
                           "label": [1 - y for y in rows["label"]]}
    for its in (data, made(["ant", "bee"], "labels"), data.with_transform(kept),
                data.with_format("torch"), data.with_format("numpy")):
        assert names_of_images(its) == right
        assert names_of_images(Subset(its, [2, 0])) == [right[2], right[0]]
    twice = hub.concatenate_datasets([data, data.select([1])])
    assert names_of_images(twice) == [*right, right[1]]
    both = ConcatDataset([data, made(["cow", "bee"])])
    assert [name for _, name in names_of_images(both)] == [
        "ant", "bee", "bee", "ant", "cow", "bee", "bee", "cow"]
    with pytest.raises(ValueError, match="the transform of the data set changes labels"):
        class_names_of(data.with_transform(turned))
    with pytest.raises(TypeError, match="got DatasetDict: choose a split: images\\['train'\\]"):
        Unlabelled(hub.DatasetDict(train=data, test=data))
    assert len(Unlabelled(data["image"])) == len(Unlabelled(data.to_iterable_dataset())) == 4


# loaders

def test_labelled_loaders_count_what_they_read():
    data = some(10, list("ab"))
    chosen = labelled(DataLoader(data, 3, sampler=SubsetRandomSampler([7, 2, 4])))
    assert sorted(number for number, _ in names_of_images(chosen)) == [2, 4, 7]
    for loader in (DataLoader(data, 3), DataLoader(data, 3, shuffle=True), DataLoader(data, None),
                   DataLoader(data, batch_sampler=BatchSampler(SequentialSampler(data), 2, True))):
        assert labelled(loader) is data
    weighted = torch.utils.data.WeightedRandomSampler([1.] * 10, 10)
    for sampler in (weighted, RandomSampler(data, replacement=True),
                    RandomSampler(data, num_samples=3), [1, 2, 3]):
        with pytest.raises(ValueError, match="loader has a .* of its own"):
            labelled(DataLoader(data, 3, sampler=sampler))
        loader = DataLoader(data, 3, sampler=sampler)  # of images: its own order is kept
        assert Unlabelled(loader).visited == len(loader.sampler)


class Pairs(BatchSampler):
    """Its batches are no slices of what its sampler says."""

    def __iter__(self):
        return iter([[0, 5], [1, 6]])


def test_collations_and_batch_samplers_that_would_be_dropped():
    x = torch.rand(6, 3, 8, 8)
    pairs, dicts = [(image, 0) for image in x], [{"image": image, "label": 0} for image in x]
    stack = torch.stack
    fine = [(pairs, lambda b: (stack([i for i, _ in b]), 0)), (pairs, lambda b: tuple(zip(*b))),
            (pairs, lambda b: b), (pairs, lambda b: stack([i for i, _ in b])),
            (dicts, lambda b: {"pixel_values": stack([r.pop("image") for r in b])}),
            (list(x), stack), ([(Image.new("L", (4, 4), 51), 0)] * 3,
                               lambda b: stack([torch.full((1, 4, 4), .2) for _ in b]))]
    for data, collate in fine:
        assert not told(lambda d=data, c=collate: Unlabelled(DataLoader(d, 2, collate_fn=c)))
    mixed = lambda b: sum(stack([i for i, _ in c]) / 2 for c in (b, b[::-1]))  # noqa: E731
    for data, collate in ((pairs, mixed), (pairs, lambda b: (stack([i for i, _ in b])[..., :4], 0)),
                          (pairs, lambda b: stack([i.mul_(2) for i, _ in b])),
                          (dicts, lambda b: {"pixel_values": stack([r["image"] for r in b]) - .5}),
                          (TensorImages(x, torch.zeros(6).long()), mixed)):
        for use in (Unlabelled, labelled):
            with pytest.raises(ValueError, match="collate_fn of the loader makes other images"):
                use(DataLoader(data, 2, collate_fn=collate))
    for collate in (lambda b: b[7], lambda b: None, lambda b: {"x": 0}):
        (said,) = told(lambda c=collate: Unlabelled(DataLoader(pairs, 2, collate_fn=c)))
        assert "may make other images" in said
    state = torch.get_rng_state()
    Unlabelled(DataLoader(list(x), 2, collate_fn=lambda b: stack(b) + 0 * torch.rand(2)[0]))
    assert torch.equal(torch.get_rng_state(), state)  # looking draws no numbers
    with pytest.raises(ValueError, match="a loader with a Pairs of its own cannot be used"):
        Unlabelled(DataLoader(x, batch_sampler=Pairs(SequentialSampler(x), 2, False)))


class Opened(Dataset):
    """Must be opened in each worker; an item says by whom, and with which seeds."""

    def __init__(self):
        self.opened = False

    def __len__(self):
        return 64

    def __getitem__(self, i):
        import random
        chance = [random.random(), np.random.random(), float(torch.rand(1))]
        info = get_worker_info()
        right = info is None or info.dataset is self
        return torch.tensor([i / 64, float(self.opened), right, *chance]).view(6, 1, 1)


def opens(worker):
    info = get_worker_info()
    info.dataset.opened = worker == info.id


def read_by(loader):
    images = Unlabelled(loader)
    return torch.cat([x for x, _ in numbered_batches(images, torch.arange(64).split(8), CPU)])


def test_workers_are_those_of_the_loader():
    """The same numbers, one by one, as the loader itself gives."""
    def loader():
        return DataLoader(Opened(), 8, num_workers=2, worker_init_fn=opens, prefetch_factor=4,
                          persistent_workers=True, generator=torch.Generator().manual_seed(5))
    right = torch.cat(list(loader()))
    assert right[:, 1:3].eq(1).all() and torch.equal(read_by(loader()), right)


def test_a_loader_that_spawns():
    loader = DataLoader(Opened(), 8, num_workers=1, worker_init_fn=opens,
                        multiprocessing_context="spawn", generator=torch.Generator().manual_seed(5))
    read = read_by(loader)
    assert read[:, 1:3].eq(1).all() and torch.equal(read[:, 0, 0, 0], torch.arange(64) / 64)


class Slow(Opened):
    def __getitem__(self, i):
        if get_worker_info() and i == 0:
            time.sleep(2)
        return torch.zeros(1, 1, 1)


def fails(worker):
    raise OSError("no such file")


def test_errors_of_workers_are_told():
    with pytest.raises(RuntimeError, match="timed out after 1 seconds"):
        read_by(DataLoader(Slow(), 8, num_workers=1, timeout=1))
    with pytest.raises(OSError, match="no such file"):
        read_by(DataLoader(Opened(), 8, num_workers=1, worker_init_fn=fails))


class Many(Dataset):
    """One file position for all, unless each worker opens its own."""

    def __init__(self, path):
        self.path = path
        self.open()

    def open(self):
        self.file = open(self.path, "rb", buffering=0)  # noqa: SIM115  a worker keeps it

    def __len__(self):
        return 64

    def __getitem__(self, i):
        self.file.seek(64 * i)
        time.sleep(.001)
        data = self.file.read(64).ljust(64, b"\xff")
        return torch.tensor(list(data), dtype=torch.uint8).view(1, 8, 8)


def test_a_file_that_each_worker_opens_anew(tmp_path):
    truth = torch.arange(64, dtype=torch.uint8)[:, None, None, None].expand(64, 1, 8, 8)
    (tmp_path / "images.bin").write_bytes(truth.contiguous().numpy().tobytes())
    data = Many(tmp_path / "images.bin")
    loader = DataLoader(data, 8, num_workers=2, worker_init_fn=lambda worker: data.open())
    assert torch.equal((read_by(loader) * 255).round().to(torch.uint8), truth)


# values

VALUES = {"bytes": (lambda x: x * 255, "divide them by 255"),
          "sixteen": (lambda x: x * 16, "highest value"),
          "deep": (lambda x: x * 65535, "highest value"),
          "normalised": (lambda x: (x - .45) / .225, "Normalize"),
          "centred": (lambda x: 2 * x - 1, "Normalize")}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("container", ["tensor", "pairs", "tuples", "dicts", "loader", "workers",
                                       "joined", "half"])
def test_values_beyond_the_range_are_told_once(kind, container):
    change, words = VALUES[kind]
    x = change(torch.rand(100, 1, 4, 4))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 1))
    pairs = TensorImages(x, torch.zeros(100).long(), ["a"])
    images = {"tensor": x, "pairs": pairs, "tuples": [(i, 0) for i in x], "half": x.half() if
              kind != "deep" else x, "dicts": [{"image": i} for i in x],
              "loader": DataLoader(pairs, 10), "workers": DataLoader(list(x), 10, num_workers=1),
              "joined": ConcatDataset([Subset(pairs, range(9)), pairs])}[container]

    def read():
        for _ in range(2):  # and once for all who read it
            data = Unlabelled(images)
            data.batch([0])
            for _ in numbered_batches(data, torch.arange(100).split(10), CPU):
                pass
        if container in ("pairs", "joined"):
            cka.evaluate(cka.Teacher(net, ["a"]), images)

    (said,) = told(read)
    assert words in said and "\n" not in said


def test_values_within_the_range_are_not_told():
    x = torch.rand(100, 1, 4, 4)
    black = x * 0
    for fine in (x, (x * 255).byte(), x.bfloat16(), x.bfloat16() * 1.0039, 1.018 * x - .009, black,
                 x.double(), torch.where(x > 2, x, 1.), (x * 255).byte().double() / 255):
        def read(images=fine):
            list(numbered_batches(Unlabelled(images), torch.arange(100).split(9), CPU))
        assert not told(read)


def test_a_training_tells_once_of_images_and_once_of_what_it_is_watched_by():
    x, labels = 255 * torch.rand(80, 1, 8, 8), torch.arange(80) % 2
    data, watched = (TensorImages(part, labels, ["a", "b"]) for part in (x, x + 1))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    quiet = {"device": "cpu", "epochs": 2, "batch_size": 8}

    def train():
        teachers = [cka.train_teacher(net, data, name=name, **quiet) for name in "xy"]
        cka.amalgamate(teachers, cka.Student(net, ["a", "b"], input_size=(1, 8, 8)), data, views=1,
                       monitor=watched, **quiet)
        cka.evaluate(teachers, watched)

    said = [line for line in told(train) if "images must be bytes" in line]
    assert len(said) == 2, said


def test_a_step_does_not_wait_to_look_at_values():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Looks(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            Looks.count += "aminmax" in str(op) or "item" in str(op) or "scalar" in str(op)
            return op(*args, **(kwargs or {}))

    images = Unlabelled(torch.rand(2000, 1, 4, 4))
    images.checked = True  # as on a GPU: finite values were looked for before
    with Looks():
        for _ in numbered_batches(images, torch.arange(2000).split(20), CPU):
            pass
    assert 0 < Looks.count <= 4, Looks.count


# names of folders

@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are changed there")
def test_folders_whose_names_look_alike(tmp_path):
    accents = [unicodedata.normalize(form, "pâté") for form in ("NFC", "NFD")]
    for k, names in enumerate((accents, ["hot dog", "hot dog "], ["cat", "cat\u200b"],
                               ["a b", "a  b"], ["cat", "Cat"], ["pate", "pâté"])):
        for name in names:
            (tmp_path / str(k) / name).mkdir(parents=True)
            Image.new("L", (4, 4)).save(tmp_path / str(k) / name / "x.png")
        said = told(lambda k=k: cka.ImageFiles(tmp_path / str(k)))
        assert len(said) == (k < 4)
        if said:
            assert "look the same" in said[0] and all(ascii(n) in said[0] for n in names)


def test_pictures_of_a_kind_that_is_not_read_are_counted(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    for name in ("b.HEIC", "c.heic", "d.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(UserWarning, match="2 files such as b.HEIC are of a kind that is not read"):
        assert len(cka.ImageFiles(tmp_path)) == 1
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ValueError, match="no image file in .*2 files such as b.HEIC"):
        cka.ImageFiles(tmp_path)
    with pytest.raises(ValueError, match=r"size must be \(C, H, W\)"):
        cka.ImageFiles(tmp_path, size=64)


def test_images_that_are_nearly_black_are_told():
    from cka_nb.images import note_of_range
    assert "divided by 255 twice" in note_of_range(0., 1 / 255)
    assert note_of_range(0., 0.) is None and note_of_range(0., .03) is None
