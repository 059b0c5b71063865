"""The order of value: all runs of a profile over all studies, each once, the most decisive first."""

from collections import Counter

from ..errors import UsageError
from ..records import Store
from ..runner import Job, merged
from .azulay2018 import STUDY as AZULAY2018
from .bases import BASES
from .comparison import STUDY as COMPARISON
from .finetuned import STUDY as FINETUNED
from .grabinski2023 import STUDY as GRABINSKI2023
from .realnetworks import STUDY as REALNETWORKS
from .saha2024 import STUDY as SAHA2024
from .study import Study, results
from .vasconcelos2020 import STUDY as VASCONCELOS2020
from .zhang2019 import STUDY as ZHANG2019

__all__ = ["STUDIES", "campaign", "worth"]

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (AZULAY2018, REALNETWORKS, ZHANG2019, VASCONCELOS2020, GRABINSKI2023, SAHA2024, COMPARISON, FINETUNED)
}
# Whose networks come first: the two chapters that ask for the plain network, its blurs and its augmentation.
VALUE = (ZHANG2019, COMPARISON, SAHA2024, AZULAY2018, VASCONCELOS2020, GRABINSKI2023)


def campaign(profile: str, seeds: int | None = None) -> list[Job]:
    """Every run of ``profile`` with all that the studies measure on it, in the order in which time is best spent.

    A whole seed comes before the next, so that every stop leaves balanced results. On ``desktop``, where a network
    takes half an hour, so does a whole chapter, with the networks that earlier ones lack.
    """
    if profile not in BASES:
        raise UsageError(f"a campaign needs a profile of {', '.join(BASES)}, got {profile!r}")
    chapters = [sorted(study.jobs(profile, seeds), key=_seed) for study in VALUE]
    jobs = merged(job for chapter in chapters for job in chapter)
    return jobs if profile == "desktop" else sorted(jobs, key=_seed)


def _seed(job: Job) -> int:
    return job.run.seed


def worth(profile: str, store: Store) -> Counter[str]:
    """How many findings that are not decided yet need each run of ``profile``, by its id."""
    needed: Counter[str] = Counter()
    for study in STUDIES.values():
        jobs = study.jobs(profile)
        decided = study.verdicts(results(jobs, store), profile).drop_duplicates("finding").set_index("finding")
        undecided = [one for one in study.findings if decided["verdict"][one.id] in ("not run", "inconclusive")]
        needed.update({job.run.id: sum(one.needs(job.labels) for one in undecided) for job in jobs})
    return needed
