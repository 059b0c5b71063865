"""Networks whose answers are known by hand."""

from torch import nn


class Answer(nn.Module):
    """What a function says of the images."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
