"""How large a study is executed: five profiles, one meaning each."""

from typing import NamedTuple

from .errors import one_of


class Profile(NamedTuple):
    """What a profile stands for; the sizes themselves are in each study."""

    data: str
    networks: str
    machine: str
    purpose: str


PROFILES = {
    "smoke": Profile("generated shapes, a few hundred", "toy", "CPU, seconds a study", "tests"),
    "laptop": Profile("generated shapes", "small", "2 CPU cores, minutes a study", "trying it, teaching"),
    "desktop": Profile(
        "photographs: CIFAR-10; shapes for ablations, TIPS",
        "VGG13, ResNet-18, half as wide",
        "2 CPU cores, days",
        "the book without a GPU",
    ),
    "gpu": Profile(
        "CIFAR-10, Imagenette, Tiny-ImageNet-100, CamVid", "VGG13, ResNet-18", "one GPU, not timed yet", "the book"
    ),
    "cluster": Profile("ImageNet-1k", "VGG16, ResNet-50, mostly 90 epochs", "many GPUs, days", "full scale"),
}


def check_profile(profile: str) -> str:
    """Return ``profile`` if it exists, else raise ``UsageError`` with the valid names."""
    return one_of("profile", profile, PROFILES)
