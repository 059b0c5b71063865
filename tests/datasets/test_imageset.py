"""Image sets: what they hold, how they are cut."""

import pytest
import torch

from aliasing.datasets import ImageSet, load
from aliasing.errors import UsageError


def make(n=6, masks=True):
    images = torch.arange(n * 3 * 4 * 5).reshape(n, 3, 4, 5).to(torch.uint8)
    return ImageSet(images, torch.arange(n) % 2, ("even", "odd"), "made", images[:, 0].contiguous() if masks else None)


def test_slices_and_indices_keep_images_labels_and_masks_together():
    whole = make()
    assert len(whole) == 6
    assert len(whole[1:3]) == 2
    assert torch.equal(whole[1:3].images, whole.images[1:3])
    chosen = whole[torch.tensor([4, 1])]
    assert torch.equal(chosen.images, whole.images[[4, 1]])
    assert torch.equal(chosen.masks, whole.masks[[4, 1]])
    assert chosen.labels.tolist() == [0, 1]
    odd = whole[whole.labels == 1]
    assert (odd.classes, odd.name, len(odd)) == (("even", "odd"), "made", 3)
    assert make(masks=False)[:2].masks is None


def test_wrong_contents_are_refused():
    images, labels = make().images, make().labels
    with pytest.raises(UsageError, match="uint8"):
        ImageSet(images.float(), labels, (), "x")
    with pytest.raises(UsageError, match=r"int64 \(6,\)"):
        ImageSet(images, labels[:2], (), "x")
    with pytest.raises(UsageError, match="masks"):
        ImageSet(images, labels, (), "x", images[:, 0, :2])
    with pytest.raises(UsageError, match="slice or a tensor, got int"):
        make()[0]


def test_names_splits_and_options_are_checked():
    with pytest.raises(UsageError, match="Did you mean 'shapes'"):
        load("shape", "train")
    with pytest.raises(UsageError, match="train, validation, test"):
        load("shapes", "valid")
    with pytest.raises(UsageError, match="Did you mean 'position_sigma'"):
        load("shapes", "train", position_sgima=1)
    with pytest.raises(UsageError, match="cifar10 has no options"):
        load("cifar10", "train", size=64)
