"""Measuring: shifts, sampling, attacks, corruptions, few-shot, segmentation, cost; every number with an interval."""
