"""Aliasing in convolutional networks: layers, networks, training, measurements and studies."""
