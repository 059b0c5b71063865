"""Malformed input of every kind: a clear error or a named skip, no traceback from deep inside, nothing overwritten."""

import json
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from aliasing import chapters, datasets, finetune, layers, metrics, models
from aliasing.adversary import attack_images, survivors
from aliasing.cli import main
from aliasing.datasets.corruptions import corrupt
from aliasing.datasets.decoding import decode
from aliasing.errors import DamagedError, DataError, UsageError
from aliasing.files import checksum, read_tensors
from aliasing.layers.fourier import asap_definition, flc_definition
from aliasing.measurements import Measurement, Subject, unpacked
from aliasing.measurements.features import _stages
from aliasing.measurements.pixel_steps import photographers_bias
from aliasing.measurements.subject import packed
from aliasing.metrics.pixel_pairs import size_pairs
from aliasing.metrics.readouts import sample_episodes
from aliasing.metrics.rolls import accuracy_by_distance, variation_per_image
from aliasing.records import Record, Run, encode
from aliasing.studies import campaign
from aliasing.training import Recipe, train
from tests.test_training import toy_data, toy_network
from tests.toys import Answer, Custom

NAN = float("nan")
CIFAR = Run({"name": "cifar10"}, {"name": "vgg-small", "num_classes": 10}, Recipe(), 0)
RUN = Run({"name": "shapes", "count": 8}, {"name": "vgg-small", "num_classes": 10}, Recipe(epochs=2), 0)
RECORD = Record(RUN, {"training": {"loss": [1.5, 0.25]}}, {"training": {"date": "2026", "seconds": 1.0}})
LINE = RECORD.to_line()
MEAN = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
BYTES = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8).to(torch.uint8)
FIRST = Answer(lambda x: x[:1].mean((2, 3)))  # of a batch
TOKENS = Custom(lambda n, x: n.head(x.flatten(2).mT.flatten(0, 1)).unflatten(0, (2, -1)).mean(1), head=nn.Linear(3, 2))
STRIDED = nn.Conv2d(3, 4, 3, 2)
PACKED = Custom(lambda n, x: SimpleNamespace(logits=n.conv(x) * n.conv.stride[0]), conv=STRIDED)
UNSEEN = Custom(lambda n, x: n.never, pool=nn.MaxPool2d(2))
PAIR = nn.Sequential(nn.MaxPool2d(2, return_indices=True))
DATA = IMAGES, LABELS = BYTES / 255, torch.tensor([0, 1])
HALF = Answer(lambda x: LABELS[:, None].log().expand(2, 3))  # minus infinity for the first of two

MORE = replace(toy_data(), labels=torch.arange(40) % 3)
OTHERS = replace(toy_data(), name="others")
UNKNOWN = replace(toy_data(), labels=torch.arange(40) % 3 - 100)
MASKED = replace(toy_data(), masks=torch.arange(2560).view(40, 8, 8).remainder(6).to(torch.uint8))
MASKS = Recipe(epochs=1, target="masks")

# What the message says of each wrong argument; the first half of it where the line would be too long.
USAGE = {
    "a recipe needs epochs >= 0, got -1": lambda: Recipe(epochs=-1),
    "a recipe needs adversary >= 0 and <= 1, got 8.0": lambda: Recipe(adversary=8.0),
    "a recipe needs auxiliary >= 0 and <= 1, got 2.0": lambda: Recipe(auxiliary=2.0),
    "a recipe needs ignore >= 0 and <= 255, got 256": lambda: Recipe(ignore=256),
    "probe attacks within the radius of an adversary: got probe=8": lambda: Recipe(probe=8),
    "an adversary attacks labels, those of ignored": lambda: Recipe(adversary=0.1, target="masks"),
    "muon sets the scale of filters, of which a U-Net": lambda: Recipe(optimizer="muon", rest_lr=0.1, target="masks"),
    "recipe: lr must be float, got True": lambda: Recipe(lr=True),
    "recipe: weight_decay must be float, got nan": lambda: Recipe(weight_decay=NAN),
    "a recipe needs momentum >= 0 and <= 1, got 1.5": lambda: Recipe(momentum=1.5),
    "unknown optimizer of recipe 'adam'; choose from sgd, adamw, muon": lambda: Recipe(optimizer="adam"),
    "randaugment moves images without their masks": lambda: Recipe(randaugment=1, target="masks"),
    "a batch needs 2 images or more, two for each": lambda: train(toy_network(), toy_data(1), Recipe(epochs=1), 0),
    "toy has classes 0 to 2, but the network 2: give": lambda: train(toy_network(), MORE, Recipe(epochs=1), 0),
    "toy has classes 0 to 2, but the network 2: ": lambda: train(toy_network(), MORE, Recipe(1, adversary=0.1), 0),
    "from 0; got -100 to -98": lambda: train(toy_network(), UNKNOWN, Recipe(epochs=1), 0),
    "toy has classes 0 to 5, but the network 3: give": lambda: train(nn.ReLU(), MASKED, MASKS, 0),
    "auxiliary=0.3 weighs losses that no": lambda: train(toy_network(), toy_data(), Recipe(auxiliary=0.3), 0),
    "shapes has no archives, got": lambda: datasets.load("shapes", "test", archives=["a"]),
    "unknown data set 'shape'": lambda: datasets.load("shape", "test"),
    "unknown split 'tests'": lambda: datasets.load("shapes", "tests"),
    "count and seed must be >= 0 and size >= 16, got -1, 0 and 32": lambda: datasets.load("shapes", "test", count=-1),
    "shapes: seed must be 0 to 1431655764, got": lambda: datasets.load("shapes", "test", seed=2**70),
    "unknown option of shapes 'counts'": lambda: datasets.load("shapes", "test", counts=3),
    "glyphs: classes and each >= 1, seed >= 0, size >= 8, got (0": lambda: datasets.load("glyphs", "test", classes=0),
    "imagenette: size must be 1 to 160 pixels, got 161": lambda: datasets.load("imagenette", "test", size=161),
    "imagenette: origin='val' has only the split 'test'": lambda: datasets.load("imagenette", "train", origin="val"),
    "imagenet-val-500 has only the split 'test', got 'train'": lambda: datasets.load("imagenet-val-500", "train"),
    "position_sigma must be a number of pixels >= 0 or": lambda: datasets.load("shapes", "test", position_sigma="even"),
    "subsample, max, rect-2, tri-3, bin-4, bin-5, bin-6, bin-7, flc": lambda: layers.create("bin5", 3),
    "flc: channels must be a whole number of at least 1, got 2.0": lambda: layers.create("flc", 2.0),
    "faithful flc: stride must be 2, got 3": lambda: layers.create("flc", 3, stride=3, faithful=True),
    "strides of 2 and a published variant, got (3, 3)": lambda: flc_definition(IMAGES, 3, faithful=True),
    "unknown variant of asap 'pad_one'": lambda: asap_definition(IMAGES, variant="pad_one"),
    "'kept-band' is not published": lambda: layers.create("asap", 1, variant="kept-band", faithful=True),
    "published flc layer has no output for maps 1 pixels wide": lambda: layers.FLC(3, faithful=True)(IMAGES[..., :1]),
    "taps must be a whole number of at least 1 or the taps themselves, got 0": lambda: layers.Blur(1, taps=0),
    "starts from the filter and control='signs' replaces": lambda: layers.Blur(1, control="signs", trainable=True),
    "blur with a kernel per channel: dims must be 2, got 1": lambda: layers.Blur(1, trainable=True, dims=1),
    "norm must be a number above 0, inf or 'max', got -1": lambda: layers.APS(2, norm=-1),
    "own: (1, 3, 16, 16) must become (1, 3, 8, 8) at stride 2, got (1, 3, 16, 16)": lambda: layers.create("own", 3),
    "lps: temperature must be above 0, got 0": lambda: layers.LPS(2, temperature=0),
    "weights (2, 4), got (3,)": lambda: layers.APS(3).sample(IMAGES, torch.zeros(3, dtype=int)),
    "choice must be phases below 4, got 8": lambda: layers.APS(3).sample(IMAGES, torch.tensor([3, 8])),
    "ddac: size must be odd, got 4": lambda: layers.DDAC(8, size=4),
    "ddac: groups must divide the 6 channels, got 4": lambda: layers.DDAC(6, groups=4),
    "unknown form 'twosided'": lambda: layers.regularisers(layers.TIPS(3), IMAGES, form="twosided"),
    "upsample: factor must be a whole number from 1 to 8, got 0": lambda: layers.Upsample(2, 0),
    "upsample: taps must be a whole number of at least 2, got 1": lambda: layers.Upsample(2, taps=1),
    "upsample: dims must be 1, 2 or 3, got 4": lambda: layers.Upsample(2, dims=4),
    "Upsample takes floats of 16, 32 or 64 bits, got torch.uint8": lambda: layers.Upsample(3)(BYTES),
    "num_classes must be a whole number of at least 1, got 0": lambda: models.create("vgg-small", 0),
    "width must be a whole number of at least 1, got '8'": lambda: models.create("vgg-small", 10, width="8"),
    "unknown option of vgg-small 'option'": lambda: models.create("vgg-small", 10, option=1),
    "unknown model 'vgg13'; choose from": lambda: models.create("vgg13", 10),
    "choose from tf_efficientnet_lite0": lambda: models.pretrained("efficientnet_lite0"),
    "{'taps': 3}": lambda: models.create("vgg-small", 10, {"taps": 3}),
    "unknown option of tri-3 'stride'": lambda: models.create("vgg-small", 10, {"name": "tri-3", "stride": 3}),
    "unknown placement 'act'": lambda: models.create("vgg-small", 10, placement="act"),
    "pool must be Optional[Literal['max', 'none']], got 'avg'": lambda: models.create("vgg-small", 10, pool="avg"),
    "stem_stride must be 1 or 2, got 3": lambda: models.create("resnet18", 10, stem_stride=3),
    "unknown position 'convolution'": lambda: models.create("resnet18", 10, positions=("convolution",)),
    "mean and std need one value per channel and std > 0": lambda: models.normalized(nn.Identity(), (0.5,), (0.0,)),
    "downsampling layers already": lambda: models.antialias(models.create("vgg-small", 10, "bin-5")),
    "unknown placement 'pool'": lambda: models.antialias(STRIDED, placement="pool"),
    "antialias: module must be torch.nn.modules.module.Module, got 'resnet18'": lambda: models.antialias("resnet18"),
    "downsample must be str | Mapping[str, Any], got Max(": lambda: models.antialias(STRIDED, layers.Max(4)),
    "unknown padding_mode of bin-5 'same'": lambda: models.antialias(STRIDED, padding_mode="same"),
    "antialias: skip must be Iterable[str], got 3": lambda: models.antialias(STRIDED, skip=3),
    "skip must hold names of modules": lambda: models.antialias(STRIDED, skip=[STRIDED]),
    "a forward reads its stride": lambda: models.antialias(PACKED, example=IMAGES),
    "holds none": lambda: models.antialias(STRIDED, example=IMAGES[:0]),
    "of finite numbers": lambda: models.antialias(STRIDED, example=IMAGES.log().sqrt()),
    "does not run on the example": lambda: models.antialias(STRIDED, example=IMAGES[:, :1]),
    "lazy modules": lambda: models.antialias(nn.Sequential(nn.LazyConv2d(8, 3, 2), nn.ReLU())),
    "the channels of the map are not known": lambda: models.antialias(UNSEEN, {"name": "tri-3", "trainable": True}),
    "use torch.export": lambda: torch.jit.script(models.antialias(STRIDED, example=IMAGES)),
    "unknown option of aps 'stride'; choose from": lambda: models.antialias(STRIDED, {"name": "aps", "stride": 2}),
    "lps: hidden must be int | None, got '8'": lambda: models.antialias(STRIDED, {"name": "lps", "hidden": "8"}),
    "images must be uint8 or float in [0, 1], (N, 3, H, W) with N >= 1": lambda: metrics.predict(MEAN, IMAGES[:0]),
    "got ndarray, of which torch.as_tensor makes a tensor": lambda: metrics.consistency(MEAN, IMAGES.numpy()),
    "batch_size must be a whole number of at least 1, got 0": lambda: metrics.predict(MEAN, IMAGES, 0),
    "images must lie in [0, 1], got 0 to 255": lambda: metrics.attack_accuracy(MEAN, 255 * IMAGES, LABELS),
    "images must be bytes, uint8 (N, 3, H, W), got torch.float32 (2, 3, 8, 8) from": lambda: corrupt(IMAGES, "fog", 1),
    "images must be uint8 (N, 3, H, W), got torch.float32 (2, 3": lambda: datasets.ImageSet(IMAGES, LABELS, (), "x"),
    "labels must be int64 (2,), got torch.int64 (1,)": lambda: datasets.ImageSet(BYTES, LABELS[:1], (), "x"),
    "masks must be uint8 (2, H, W) like the images": lambda: datasets.ImageSet(BYTES, LABELS, (), "x", BYTES[:, 0, 1:]),
    "got torch.int64 (2, 8, 8)": lambda: datasets.ImageSet(BYTES, LABELS, (), "x", BYTES[:, 0].long()),
    "an ImageSet is indexed with a slice or a tensor, got int": lambda: datasets.ImageSet(BYTES, LABELS, (), "x")[0],
    "accuracy needs labels:": lambda: accuracy_by_distance(metrics.roll_predictions(MEAN, IMAGES)),
    "the variation of the class probability needs": lambda: variation_per_image(metrics.roll_predictions(MEAN, IMAGES)),
    "unknown shift 'roll'": lambda: metrics.consistency(MEAN, IMAGES, "roll"),
    "only circular shifts can be exhausted": lambda: metrics.consistency(MEAN, IMAGES, "standard", exhaustive=True),
    "the crop shift needs max_shift=M: the network sees a window of": lambda: metrics.consistency(MEAN, IMAGES, "crop"),
    "max_shift=4 does not fit crop shifts of images (8, 8)": lambda: metrics.consistency(MEAN, IMAGES, "crop", 4),
    "a crop window with max_shift=2 cannot": lambda: metrics.shift_images(IMAGES, torch.full((2, 2), 3), "crop", 2),
    "circular shifts are whole pixels, got": lambda: metrics.shift_images(IMAGES, torch.full((2, 2), 0.5), "circular"),
    "a whole number of at least 0, got -1": lambda: list(metrics.roll_logits(MEAN, IMAGES, max_shift=-1)),
    "method must be None or 'brute force', got": lambda: list(metrics.roll_logits(MEAN, IMAGES, method="quick")),
    "unknown one-pixel protocol 'zoom'": lambda: metrics.one_pixel(MEAN, IMAGES, "zoom"),
    "pairs must be a whole number of at least 1, got 0": lambda: metrics.one_pixel(MEAN, IMAGES, pairs=0),
    "one-pixel protocols need images of at least 8 x 8 pixels, got": lambda: metrics.one_pixel(MEAN, IMAGES[:, :, :4]),
    "size must be greater than 0 and at most 8, the pixels there are, got 0": lambda: size_pairs(IMAGES, 0),
    "a picture of 4 rows has 2 to 5 positions on 8 rows, got 100": lambda: metrics.vertical_sweep(IMAGES, 100, "black"),
    "unknown border 'white'": lambda: metrics.vertical_sweep(IMAGES, border="white"),
    "top must be at least 1 and less than the 3 classes, got 0": lambda: metrics.jaggedness(MEAN, *DATA, top=0),
    "no module named 'nowhere'": lambda: metrics.equivariance_maps(MEAN, IMAGES, ["nowhere"]),
    "'0' gives (3,)": lambda: metrics.equivariance_maps(nn.Sequential(MEAN), IMAGES, ["0"], max_shift=0),
    "neighbours must be 1 to 2, got 3": lambda: metrics.typicality(MEAN, IMAGES, IMAGES, neighbours=3),
    "Sequential has no linear layer": lambda: metrics.embedding(MEAN, IMAGES),
    "not one row for each": lambda: metrics.embedding(TOKENS, IMAGES),
    "are NaN or infinite for 1 of 2 images": lambda: metrics.predict(HALF, IMAGES),
    "masks hold class 255": lambda: metrics.mean_iou(nn.ReLU(), IMAGES, BYTES[:, 0] * 0 + 255, ignore_index=-1),
    "Conv2d has no downsampling site: no downsampling": lambda: metrics.max_sampling_bias(nn.Conv2d(3, 3, 3), IMAGES),
    "taps must be odd and at least 1, got 4": lambda: metrics.low_pass(4),
    "Linear has no convolution with more than one tap": lambda: metrics.total_variation(nn.Linear(2, 2)),
    "unknown attack 'pdg'": lambda: metrics.attack_accuracy(MEAN, IMAGES, LABELS, "pdg"),
    "eps must be >= 0 and <= 1, the range of the images, got 8;": lambda: metrics.attack_accuracy(MEAN, *DATA, eps=8),
    "from 0 to 2, the last class of the network; got 5 to 6": lambda: attack_images(MEAN, IMAGES, LABELS + 5),
    "images must lie in [0, 1], got -1 to": lambda: metrics.consistency(MEAN, IMAGES - 1, "standard"),
    "metrics need a network that returns logits (N, classes), got (384": lambda: metrics.predict(nn.Flatten(0), BYTES),
    "one row of logits per image, got (48, 8) for 2": lambda: metrics.consistency(nn.Flatten(0, 2), IMAGES),
    "one row of logits per image, got (1, 3) for 8 images": lambda: list(metrics.roll_logits(FIRST, IMAGES[:1])),
    "'0' must return one tensor, this returns tuple": lambda: metrics.realigned_errors(PAIR, IMAGES),
    "rolls need a network that returns logits": lambda: metrics.consistency(nn.ReLU(), IMAGES, exhaustive=True),
    "needs a network that returns logits (N, classes), got (2, 3, 8": lambda: metrics.consistency(nn.ReLU(), IMAGES),
    "a share is of booleans, got torch.int64": lambda: metrics.Estimate.share(torch.tensor([2, -1])),
    "batch_size must be a whole number of at least 1, got -1": lambda: metrics.consistency(MEAN, IMAGES, batch_size=-1),
    "top must be at least 1 and less than the 3 classes, got 1.5": lambda: metrics.jaggedness(MEAN, *DATA, 1.5),
    "size must be (H, W) or (C, H, W), got 32": lambda: metrics.count_flops(STRIDED, 32),
    "layers must be a list of names, such as ['10'], got": lambda: metrics.non_shiftability(STRIDED, IMAGES, "10"),
    "a radial spectrum is of maps (N, C, H, W) of at least 2 x 2 pixels, got (2, 3, 1, 8)": lambda: (
        metrics.radial_spectrum(IMAGES[:, :, :1])
    ),
    "bands must be a whole number of at least 1, got 0": lambda: metrics.band_accuracy(FIRST, IMAGES, LABELS, 0),
    "eps must be >= 0 and <= 1, the range of the images, got 9;": lambda: metrics.perturb(MEAN, *DATA, None, eps=9),
    "numbers by image must be from 0 to 255 as torch.int64, got 3 to 256": lambda: packed(torch.tensor([3, 256])),
    "numbers by image must be from 0 to 1 as torch.float32, got nan": lambda: packed(torch.tensor([0.5, NAN])),
    "there are 0 to 3 successes among 3 units, got 5": lambda: metrics.Estimate.proportion(5, 3),
    "less than the side, and leave pixels": lambda: metrics.mask_consistency(nn.ReLU(), IMAGES, max_shift=8),
    "logits (N, classes, 8, 8) of the size": lambda: metrics.mask_consistency(nn.MaxPool2d(2), IMAGES, max_shift=1),
    "(2, 8, 8) like the images, got torch.float32 (2, 8, 8)": lambda: metrics.mean_iou(nn.ReLU(), IMAGES, IMAGES[:, 0]),
    "an attack needs at least one eps, got none": lambda: survivors(MEAN, *DATA, (), "pgd"),
    "Did you mean 'fog'?": lambda: metrics.corruption_error(MEAN, BYTES, LABELS, ("frog",)),
    "severity must be 1 to 5, got 0": lambda: corrupt(BYTES, "fog", 0),
    "names of corruptions must be a list of at least one": lambda: metrics.corruption_error(MEAN, BYTES, LABELS, ()),
    "severities of corruptions must be a list of": lambda: metrics.corruption_error(MEAN, BYTES, LABELS, severities=3),
    "generator must be a torch.Generator of the CPU, such": lambda: metrics.consistency(MEAN, IMAGES, generator=3),
    "one label per image is needed, got 1 labels for 2": lambda: metrics.perturb(MEAN, IMAGES, LABELS[:1], None),
    "(2, 8, 8) like the images, got torch.int64 (2": lambda: metrics.mean_iou(nn.ReLU(), IMAGES, LABELS[:, None, None]),
    "ways, shots, queries and episodes must": lambda: sample_episodes(LABELS, 5, 0, 15, 600),
    "5 classes with at least 16 images (1 shots, 15": lambda: sample_episodes(LABELS, 5, 1, 15, 600),
    "paired rates must lie in [0, 1], got 30 to 90; see": lambda: metrics.Estimate.paired(*torch.tensor([[90], [30]])),
    "paired rates must lie in [0, 1], got nan": lambda: metrics.Estimate.paired(torch.tensor([NAN]), torch.ones(1)),
    "an estimate needs at least one value, got none": lambda: metrics.Estimate.mean(torch.zeros(0)),
    "an estimate needs at least one unit, got n=0": lambda: metrics.Estimate.proportion(0, 0),
    "of each kind per unit is needed, got 2 and 3": lambda: metrics.Estimate.difference(torch.ones(2), torch.ones(3)),
    "of each kind per unit is needed, got 2 and 4": lambda: metrics.Estimate.ratio(torch.ones(2), torch.ones(4)),
    "of each kind per unit is needed, got 2 and 5": lambda: metrics.Estimate.bootstrap(torch.ones(2), torch.ones(5)),
    "numbers by image look like '500x1:...', got '0101'": lambda: unpacked("0101"),
    "numbers by image must be 500 of 1 bits, got '500x1:AAAA' with 3": lambda: unpacked("500x1:AAAA"),
    "numbers by image must be 5 of 8 bits, got '5x8:A'": lambda: unpacked("5x8:A"),
    "max_shift must be a whole number of at least 0, got 1.5": lambda: metrics.consistency(MEAN, IMAGES, max_shift=1.5),
    "masks hold class -1, but the network": lambda: metrics.mean_iou(nn.ReLU(), IMAGES, BYTES[:, 0].long() % 3 - 1),
    "class maps must have the masks' size (2, 8": lambda: metrics.mean_iou(nn.AvgPool2d(2), IMAGES, BYTES[:, 0]),
    "returns dict; wrap it": lambda: metrics.predict(Answer(lambda x: {"out": x}), IMAGES),
    "quantise with prepare_fx": lambda: layers.Max(3)(torch.quantize_per_tensor(IMAGES, 1.0, 0, torch.quint8)),
    "DenseMax takes floats": lambda: layers.DenseMax(2)(BYTES),
    "unknown profile 'huge'": lambda: campaign("huge"),
    "choose from best, smoke, laptop, desktop, gpu, cluster": lambda: chapters.check(profile="lapto"),
    "choose from auto, cpu": lambda: chapters.check(device="tpu"),
    "seeds must be a whole number from 1 on, or None": lambda: chapters.check(seeds="3"),
    "width must be a whole number from 1 on, got True": lambda: chapters.check(width=True),
    "unknown downsampling layer 'bin-9'; choose from subsample": lambda: chapters.check(layers=["bin-9"]),
    "layers must be a list of names of layers, got 'bin-5'; papermill is": lambda: chapters.check(layers="bin-5"),
    "radii must be a list of numbers from 0 on": lambda: chapters.check(radii=[-1]),
    "shifts must be a list of whole numbers from 0 on": lambda: chapters.check(shifts=[0.5]),
    "held_out must be an aliasing.datasets.ImageSet, got Te": lambda: finetune(MEAN, "flc", IMAGES, held_out=IMAGES),
    "got builtin_function_or_method; a function that makes one is": lambda: finetune(len, "flc", IMAGES),
    "photographers_bias needs the data set shapes": lambda: photographers_bias(Subject(CIFAR, MEAN, "cpu"), 8),
    "a record holds numbers, texts, estimates, and lists and mappings of them, got {1}": lambda: encode({"a": {1}}),
    "a record holds numbers, texts, estimates, and lists and mappings of them, got tensor([0.7": lambda: (
        encode({"m": torch.tensor([0.7 + 2j])})
    ),
    "by texts, of which two are alike, got [1, '1']": lambda: encode({1: 0.5, "1": 0.6}),
    "stages begin with a module called act or relu, of which Linear has none": lambda: _stages(nn.Linear(2, 2)),
    "unknown measurement 'x'": lambda: Measurement("x"),
    "measurement accuracy needs count, got {}": lambda: Measurement("accuracy"),
    "unknown option of accuracy 'counts'; choose from count": lambda: Measurement("accuracy", {"counts": 8}),
    "accuracy: count must be int, got '8'": lambda: Measurement("accuracy", {"count": "8"}),
}  # fmt: skip


class Own(layers.Downsample):
    def sample(self, x, choice=None):
        return x


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("message", USAGE)
def test_a_wrong_argument(message, monkeypatch):
    monkeypatch.setitem(layers.CATALOGUE, "own", layers.Entry(Own, "forgets to subsample", "a cell"))
    with pytest.raises(UsageError) as error:
        USAGE[message]()
    assert message in str(error.value)


@pytest.mark.parametrize("name", layers.CATALOGUE)
def test_a_wrong_option_of_every_layer(name):
    for option in layers.CATALOGUE[name].options:
        for value in ({}, NAN, object()):
            with pytest.raises(UsageError, match=option):
                layers.create(name, 4, **{option: value})


# Records.


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(LINE) - 1), st.integers(0, 6))
def test_every_flipped_bit_of_a_line_is_found(place, bit):
    content = bytearray(LINE.encode())
    content[place] ^= 1 << bit
    with pytest.raises(ValueError, match=r"."):
        Record.from_line(content.decode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["id", "run", "measurements", "provenance", "check"]), JSON)
def test_any_json_in_a_line(key, value):
    with suppress(ValueError):
        record = Record.from_line(json.dumps(json.loads(LINE) | {key: value}))
        assert record.to_line() == LINE  # only what changes nothing passes, such as no check sum


# Checkpoints.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.safetensors"
    train(toy_network(), toy_data(), Recipe(epochs=1, batch_size=8, lr=0.05), seed=0, checkpoint=path)
    return path.read_bytes()


def saved(change, **header):
    """A checkpoint of the toy network, its tensors changed, with its true sum or another header."""
    tensors = change({f"network.{key}": value for key, value in toy_network().state_dict().items()})
    return save(tensors, {"history": "[]"} | (header or {"sha256": checksum(tensors, "[]")}))


CHECKPOINTS = {
    "cut in its head": (DamagedError, lambda whole: whole[:7]),
    "cut in its header": (DamagedError, lambda whole: whole[: int.from_bytes(whole[:8], "little") // 2]),
    "cut in its numbers": (DamagedError, lambda whole: whole[:-1]),
    "more behind it": (DamagedError, lambda whole: whole + b"\0"),
    "a bit of its header": (DamagedError, lambda whole: whole[:30] + bytes([whole[30] ^ 4]) + whole[31:]),
    "a bit of its numbers": (DamagedError, lambda whole: whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]),
    "no history": (DamagedError, lambda whole: save(dict(toy_network().state_dict()), {"History": "[]"})),
    "no sum": (DamagedError, lambda whole: saved(dict, others="")),
    "a tensor more": (DataError, lambda whole: saved(lambda t: t | {"network.9.weight": torch.zeros(1)})),
    "a tensor less": (DataError, lambda whole: saved(lambda t: {k: t[k] for k in list(t)[1:]})),
    "a tensor of another shape": (DataError, lambda whole: saved(lambda t: t | {"network.0.weight": torch.zeros(4)})),
    "an optimizer's of no weight": (DataError, lambda whole: saved(lambda t: t | {"optimizer.99.x": torch.zeros(1)})),
}


@pytest.mark.parametrize("other", [{"epochs": 1}, {"lr": 0.5}, {"seed": 1}, {"data": toy_data(20)}, {"data": OTHERS}])
def test_a_checkpoint_of_another_run_is_refused_and_left_alone(other, tmp_path):
    path, recipe, given = tmp_path / "c", Recipe(epochs=2, batch_size=8), {"data": toy_data(), "seed": 0}
    train(toy_network(), **given, recipe=recipe, checkpoint=str(path))
    content = path.read_bytes()
    given |= {"recipe": replace(recipe, **{k: v for k, v in other.items() if k not in given})}
    with pytest.raises(DataError, match="is of a run with"):
        train(toy_network(), **(given | {k: v for k, v in other.items() if k in given}), checkpoint=path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_wrong_checkpoint_is_refused_and_left_alone(kind, checkpoint, tmp_path):
    error, damage = CHECKPOINTS[kind]
    path, content = tmp_path / "c.safetensors", damage(checkpoint)
    path.write_bytes(content)
    with pytest.raises(error, match=str(path)):
        train(toy_network(), toy_data(), Recipe(epochs=2, batch_size=8, lr=0.05), seed=0, checkpoint=path)
    assert path.read_bytes() == content


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_as_tensors(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        read_tensors(path, "history")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM" + b"\0" * 60])
def test_a_file_that_is_no_image(content):
    with pytest.raises(DataError, match=r"1\.png is not a readable image"):
        decode([("class", "1.png", content)])


# The command line.


COMMANDS = {
    "": "COMMAND",
    "nothing": "invalid choice: 'nothing'",
    "run zang2019": "Did you mean 'zhang2019'?",
    "run zhang2019 --seeds 0": "seeds must be a whole number of at least 1",
    "run zhang2019 --limit-minutes nan": "limit_minutes must be 0 or more, got nan",
    "run zhang2019 --device tpu": "choose from auto, cpu",
    "run zhang2019 --only layer=bin-9": "layer=VALUE with VALUE one of bin-5, bin-7",
    "run zhang2019 --only filter=bin-5": "KEY one of ['augmented', 'layer'",
    **dict.fromkeys(
        (f"run zhang2019 --shard {shard}" for shard in ("0/2", "3/2", "1", "a/b", "\u00b2/3")), "1 <= I <= N"
    ),
    "findings --profile lapto": "choose from smoke, laptop, desktop, gpu, cluster. Did you mean 'laptop'?",
    "findings --claim zhang-99": "zhang-5",
    "findings --claim zhang-5 --study azulay2018": "a finding of zhang2019, not of azulay2018",
    "publish zhang2019 --weights -1": "--weights must be a whole number of at least 0, got -1",
    "data cifar": "cifar10",
    "submit zhang2019 --profile smoke --tasks 9": "--tasks must be 1 to 8",
    "submit realnetworks": "realnetworks plans no runs in profile laptop",
    "submit zhang2019 --processes 0": "--processes must be a whole number of at least 1",
    "diagnose resnet18": "--images",
    "diagnose resnet18 --images /dev/null": "must be a folder",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_command(command, capsys, tmp_path, monkeypatch):
    """Exit status 2, with what is wrong and what is valid on standard error, and no file written."""
    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path / "runs"))
    try:
        status = main(command.split())
    except SystemExit as stopped:  # argparse
        status = stopped.code
    printed = capsys.readouterr()
    assert status == 2
    assert not printed.out and COMMANDS[command] in printed.err and "Traceback" not in printed.err
    assert not (tmp_path / "runs").exists()
