"""What data sets there are, who made them, and the archives they are read from."""

from __future__ import annotations

from dataclasses import dataclass

from .archives import Archive


@dataclass(frozen=True)
class Entry:
    """A data set in one line, who made it, and on which terms it is used."""

    description: str
    source: str
    licence: str


CATALOGUE: dict[str, Entry] = {
    "shapes": Entry(
        "procedural textured shapes, 10 classes, 32x32 or larger, exact sub-pixel positions, masks",
        "this package",
        "MIT, generated",
    ),
    "glyphs": Entry(
        "procedural handwriting, a character a class, 32x32 or other, for few-shot transfer",
        "this package",
        "MIT, generated",
    ),
    "cifar10": Entry(
        "photographs, 10 classes, 32x32, 50,000 + 10,000",
        "Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        "no licence stated; research use",
    ),
    "imagenette": Entry(
        "photographs, 10 ImageNet classes, short side 160, 9,469 + 3,925",
        "Howard, fastai/imagenette, version 2; images of ImageNet (Deng et al., CVPR 2009)",
        "Apache-2.0 for the collection; images under the terms of ImageNet, research use",
    ),
    "imagenet-val-500": Entry(
        "photographs of ImageNet's validation set, 50 of each of Imagenette's ten classes, short side 224",
        "Deng et al., CVPR 2009",
        "terms of ImageNet, research use",
    ),
    "imagenet-sample-1000": Entry(
        "photographs, one of each of ImageNet's 1,000 classes, 256x256, very probably training pictures",
        "Deng et al., CVPR 2009; collected by E. Schwartz",
        "terms of ImageNet, research use",
    ),
    "tiny-imagenet-100": Entry(
        "photographs, first 100 classes of Tiny-ImageNet, 64x64, 400 + 50 a class, grouped for few-shot work",
        "Stanford CS231n, Tiny ImageNet; images of ImageNet (Deng et al., CVPR 2009)",
        "terms of ImageNet, research use",
    ),
    "omniglot": Entry(
        "drawings of handwritten characters, 20 each, white on black",
        "Lake, Salakhutdinov and Tenenbaum, Science 350, 2015",
        "MIT",
    ),
    "camvid": Entry(
        "road scenes with a class for every pixel, 240x180, 367 + 101 + 233",
        "Brostow, Fauqueur and Cipolla, Pattern Recognition Letters 30, 2009; split of SegNet",
        "research use",
    ),
    "folder": Entry(
        "your own images or ImageNet: a folder per class",
        "you",
        "yours",
    ),
}
NAMES: tuple[str, ...] = tuple(CATALOGUE)

_CIFAR10_OFFICIAL = Archive(
    "cifar-10-python.tar.gz",
    "md5:c58f30108f718f92721af3b95e74349a",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
_CIFAR10_JPEG = Archive(
    "cifar10-jpeg.tar.xz", "sha256:e82212b8f8580e3e79f41a32c7db0e6a5b8fb10188d1723b706e150379c98be9"
)
_IMAGENETTE_OFFICIAL = Archive(
    "imagenette2-160.tgz",
    "md5:e793b78cc4c9e9a4ccc0c1155377a412",
    "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
)
_IMAGENETTE_COPY = (
    Archive("imagenette2-160-train.tar.xz", "sha256:95b2fd19b6d2b53bb285a91dfa3350f65e15e6950dae45682b2e47d7e5f51c98"),
    Archive("imagenette2-160-val.tar.xz", "sha256:a731ccfa489175d0b8ba17ac875b807ac3f02ba942eccde3d82f653b1e61b08c"),
)
_IMAGENET_VAL = Archive(
    "imagenet-val-500.tar.xz", "sha256:180aff1c65138cd7f69ddc5209d69b129152deb79fad7b8a15ca10dacf5582bf"
)
_IMAGENET_SAMPLE = Archive(
    "imagenet-sample-1000.tar.xz", "sha256:c5a9e2e9641b22fbe57efb0703c7bd22b3c278fb7fb4dd9848f6057d19681815"
)
_TINY = Archive("tiny-imagenet-100.tar.xz", "sha256:a2a7fa861d00e3813f6517cf78e0f8e238d95d30e1201fe1d229a7a3c8120e54")
_CAMVID = Archive("camvid-240.tar.xz", "sha256:e65f18d3312f29434269254c40149bba446ab4c44c5a52ac1825820741dba302")
_OMNIGLOT = (
    Archive("omniglot-small1.zip", "sha256:f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4"),
    Archive("omniglot-small2.zip", "sha256:3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f"),
)

# The forms in which a data set is understood, the preferred one first.
ARCHIVES: dict[str, list[tuple[Archive, ...]]] = {
    "cifar10": [(_CIFAR10_OFFICIAL,), (_CIFAR10_JPEG,)],
    "imagenette": [(_IMAGENETTE_OFFICIAL,), _IMAGENETTE_COPY],
    "imagenet-val-500": [(_IMAGENET_VAL,)],
    "imagenet-sample-1000": [(_IMAGENET_SAMPLE,)],
    "tiny-imagenet-100": [(_TINY,)],
    "omniglot": [_OMNIGLOT],
    "camvid": [(_CAMVID,)],
}
