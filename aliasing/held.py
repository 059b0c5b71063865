"""An attribute that has another value for a while."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held(name: str, value: object, *owners: object) -> Iterator[None]:
    """Let ``name`` of all ``owners`` be ``value`` meanwhile, then what it was before, or ``None`` where it was not."""
    before = [getattr(owner, name, None) for owner in owners]
    try:
        for owner in owners:
            setattr(owner, name, value)
        yield
    finally:
        for owner, own in zip(owners, before, strict=True):
            setattr(owner, name, own)
