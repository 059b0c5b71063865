"""The command line: ``aliasing COMMAND``, the same as ``python -m aliasing COMMAND``.

Exit status: 0, 1 (work failed), 2 (bad usage; the message lists the valid choices), 130 (stopped from the keyboard).
"""

import argparse
import errno
import io
import json
import os
import shlex
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError, UsageError, at_least, missing, one_of
from .memory import keep_freed
from .profiles import PROFILES, check_profile
from .version import __version__

# What computes is imported by the command that needs it: help, lists and typing errors need not wait for PyTorch.
if TYPE_CHECKING:
    import pandas as pd


def _print(table: "pd.DataFrame", as_json: bool) -> None:
    import pandas as pd

    from .records import encode

    if as_json:  # every digit: pandas itself keeps ten decimals, and of a small p nothing
        print(json.dumps(encode(table.to_dict("records"), digits=None), indent=1))
    else:
        with pd.option_context("display.max_colwidth", 80):
            print(table.to_string(index=False, na_rep="-") if len(table) else "nothing")


def _named(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the options, with the names that a function has for them, that were given or have a default here."""
    return {name: value for name, value in vars(arguments).items() if name in names}


def _list(arguments: argparse.Namespace) -> None:
    """What exists, one line each with its source."""
    from . import datasets, layers, models, studies
    from .measurements import MEASUREMENTS

    about = {name: (function.__doc__ or "").strip().splitlines()[0] for name, function in MEASUREMENTS.items()}
    tables: dict[str, list[dict[str, str]]] = {  # in the order of the registries; the first column is the name
        f"{kind}s": [{kind: n, "what": e.description, "source": e.source} for n, e in room.CATALOGUE.items()]
        for kind, room in {"layer": layers, "model": models, "dataset": datasets}.items()
    } | {
        "studies": [{"study": s.name, "title": s.title, "source": s.source} for s in studies.STUDIES.values()],
        "metrics": [{"metric": name, "what": line} for name, line in about.items()],
        "profiles": [{"profile": name} | profile._asdict() for name, profile in PROFILES.items()],
    }
    if arguments.json:
        print(json.dumps(tables[arguments.what] if arguments.what else tables, indent=1))
        return
    for kind, rows in tables.items():
        if arguments.what not in (None, kind):
            continue
        if not arguments.what:
            print(f"\n{kind}")
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _run(arguments: argparse.Namespace) -> int:
    """Train and measure what a study lacks; stop it at any time and run it again to continue."""
    from . import runner, studies, torchrun
    from .distributed import launched

    study = studies.get(arguments.study)
    jobs = study.jobs(arguments.profile, arguments.seeds, arguments.only)
    if arguments.shard:
        jobs = jobs[arguments.shard[0] - 1 :: arguments.shard[1]]
    store = studies.open_store()
    execute = torchrun.execute if launched() else runner.execute
    outcomes = execute(jobs, store, arguments.device, arguments.workers, not arguments.quiet, arguments.limit_minutes)
    failed = int(any(outcome.startswith("failed") for outcome in outcomes.values()))
    if launched() and os.environ["RANK"] != "0":
        return failed  # one process speaks for all
    counts = Counter(outcome.split(":")[0] for outcome in outcomes.values()).most_common()
    none = "no run is in this shard" if arguments.shard else "no run is planned"
    told = ", ".join(f"{count} {name}" for name, count in counts) or none
    print(f"{study.name} ({arguments.profile}): {told}")
    for run, outcome in outcomes.items():
        if outcome.startswith("failed"):
            details = store.working / run / "failed.txt"  # a process that was killed could not write one: it is older
            known = details.exists() and outcome != runner.KILLED
            print(f"{run} {outcome}{f' (details in {details})' * known}", file=sys.stderr)
    return failed


def _submit(arguments: argparse.Namespace) -> None:
    """Hand a study to SLURM as an array job."""
    from . import slurm, studies

    study = studies.get(arguments.study)
    runs = len(study.jobs(arguments.profile, arguments.seeds, arguments.only))
    if not runs:
        raise UsageError(f"{study.name} plans no runs in profile {arguments.profile}; take another --profile")
    if not 1 <= arguments.tasks <= runs:
        raise UsageError(f"--tasks must be 1 to {runs}, the runs there are to share, got {arguments.tasks}")
    at_least("--processes", arguments.processes, 1)
    command = ["run", study.name, "--profile", arguments.profile, "--device", arguments.device]
    command += [] if arguments.seeds is None else ["--seeds", str(arguments.seeds)]
    command += [f"--only={condition}" for condition in arguments.only]
    name = f"{study.name}.{arguments.profile}"
    text = slurm.script(command, name, arguments.tasks, arguments.sbatch, arguments.processes)
    print(text if arguments.dry_run else slurm.submit(text), end="" if arguments.dry_run else "\n")


def _campaign(arguments: argparse.Namespace) -> int:
    """Check a device, time it, and spend seconds on the runs worth most."""
    from . import campaign

    done = campaign.run(arguments.device, arguments.profile, arguments.budget, arguments.out)
    return int("training" in done["failed"] or done["broken"] > 0)


def _status(arguments: argparse.Namespace) -> None:
    """Planned, done, running and failed runs."""
    from . import studies

    asked = [studies.get(arguments.study).name] if arguments.study else []
    if arguments.runs:
        import pandas as pd

        from .durations import order

        rows = order(arguments.profile or "desktop", studies.open_store(), *asked)
        _print(pd.DataFrame(rows), arguments.json)
        left = [row["seconds"] for row in rows if row["state"] != "done"]
        if not arguments.json:
            known = [seconds for seconds in left if seconds is not None]
            guessed = sum(row["state"] != "done" and bool(row["estimate"]) for row in rows)
            hours = f"{sum(known) / 3600:.1f} h one after the other"
            hours += f" without {len(left) - len(known)} of unknown length" if len(known) < len(left) else ""
            print(f"\n{len(left)} runs to do, {hours} ({guessed} by estimate, for one core of this machine)")
    else:
        _print(studies.status_of(asked, arguments.profile), arguments.json)


def _publish(arguments: argparse.Namespace) -> None:
    """Merge the working records of a study into data/records."""
    from . import studies
    from .files import read_tensors
    from .jobs import complete, curves_of
    from .records import Store, home, publish, same_training
    from .training import keep_weights

    at_least("--weights", arguments.weights, 0)
    store, published = Store(), False
    for profile in [arguments.profile] if arguments.profile else PROFILES:
        jobs = studies.get(arguments.study).jobs(profile)
        # What other studies measured on a shared run is in their own files.
        records = [record for record in (studies.asked(job, store) for job in jobs) if record.measurements]
        if not records or (profile == "smoke" and not arguments.profile):
            continue
        path = arguments.out or home() / "data/records" / f"{arguments.study}.{profile}.jsonl"
        print(f"{path}: {publish(records, path)} records")
        published = True
        for job in jobs[: arguments.weights]:
            checkpoint = store.folder(job.run) / "checkpoint.safetensors"
            record = store.load(job.run)
            if not checkpoint.exists() or not complete(job, record):
                continue  # its training may not be over
            curves = curves_of(read_tensors(checkpoint, "history")[1])
            if same_training(record.measurements["training"], curves):  # else that is the record of another network
                keep_weights(checkpoint, store.weights(job.run))
    if not published:
        wanted = f"profile {arguments.profile}" if arguments.profile else "any profile but smoke"
        raise DataError(f"{arguments.study} has no records of {wanted}; aliasing run makes them")


def _verify(arguments: argparse.Namespace) -> int:
    """Train and measure one published record anew and compare every value."""
    import pandas as pd

    from .verify import verify

    rows = pd.DataFrame(verify(arguments.id, arguments.device, not arguments.json))
    _print(rows, arguments.json)
    return int(not rows["equal"].all())


def _findings(arguments: argparse.Namespace) -> None:
    """Every claim with its verdict; --claim for its statistics, rules and regime."""
    from . import studies
    from .studies.text import one_line_each, whole

    owners = {finding.id: study.name for study in studies.STUDIES.values() for finding in study.findings}
    chosen = owners[one_of("claim", arguments.claim, owners)] if arguments.claim else arguments.study
    if arguments.study not in (None, chosen):
        raise UsageError(f"{arguments.claim} is a finding of {chosen}, not of {arguments.study}; leave out --study")
    decided = studies.findings([] if chosen is None else [chosen], arguments.profile)
    if arguments.claim:
        decided = decided[decided["finding"] == arguments.claim]
    # What is piped to another program is not cut.
    width = shutil.get_terminal_size((80 if arguments.claim else 1000, 24)).columns
    if arguments.csv:
        print(decided.to_csv(index=False), end="")
    elif arguments.json:
        _print(decided, True)
    else:
        print(whole(decided, width) if arguments.claim else one_line_each(decided, width))


def _data(arguments: argparse.Namespace) -> None:
    """Find, fetch or unpack a data set and print where it is."""
    from . import datasets

    print(datasets.fetch(arguments.name, arguments.root))


def _diagnose(arguments: argparse.Namespace) -> int:
    """How fragile a network is under shifts, where it aliases, what would help."""
    from .diagnosis import diagnose

    options = _named(arguments, "count", "size", "weights", "device", "report")
    with redirect_stdout(sys.stderr):  # what somebody's network prints is no part of the answer
        found = diagnose([arguments.model, *arguments.compare], arguments.images, progress=True, **options)
    print(json.dumps(found.plain(), indent=1) if arguments.json else found)
    for name, reason in (found.skipped | found.failed).items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    if arguments.report:
        print(f"report: {arguments.report}", file=sys.stderr)
    return int(bool(found.failed))


def _finetune(arguments: argparse.Namespace) -> None:
    """Anti-alias a trained network and fine-tune it on pictures; needs no labels."""
    from .diagnosis.diagnosis import aligned, wrapped
    from .diagnosis.networks import split
    from .diagnosis.report import percent
    from .finetuning import conclusion, finetune, plain

    network, layer = split(arguments.network)
    if not layer:
        example = "resnet18" if network.endswith(".safetensors") else network
        raise UsageError(f"expected NETWORK+LAYER, such as {example}+tri-3, got {network!r}")
    options = _named(arguments, "out", "epochs", "minutes", "lr", "batch_size", "size", "weights", "device")
    with redirect_stdout(sys.stderr):  # as for diagnose
        _, table = finetune(network, layer, arguments.images, progress=True, **options)
    if arguments.json:
        print(json.dumps(plain(table), indent=1))
    else:
        signs = {row: "+" if ", minus" in row else "" for row in table.index}
        rows = {row: [percent(cell, signs[row]) if cell else "" for cell in table.loc[row]] for row in table.index}
        print(aligned(type(table).from_dict(rows, orient="index", columns=list(table.columns))))
        print(wrapped(conclusion(table)), end="\n\n")
        print(shlex.join(["aliasing", "diagnose", str(arguments.out), "--images", str(arguments.images)]))


def _bench(arguments: argparse.Namespace) -> None:
    """Our speed beside the peers', taking turns: medians and ratios."""
    from .clone import benchmarks

    names = [arguments.what] if arguments.what else _BENCHES
    benchmarks().compare(names, arguments.device, arguments.repeats, arguments.quick, arguments.json, arguments.out)


_BENCHES = ("layers", "training", "evaluation", "robustness")


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with 1 <= I <= N, such as 1/4, got {text!r}")
    return int(index), int(count)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aliasing", description="Aliasing in convolutional networks.")
    parser.add_argument("--version", action="version", version=f"aliasing {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    profile: dict[str, Any] = {"metavar": "PROFILE", "help": f"one of {', '.join(PROFILES)}"}
    study: dict[str, Any] = {"metavar": "STUDY", "help": "as aliasing list studies names it"}

    def command(function: Callable[[argparse.Namespace], int | None], device: str = "", table: bool = False) -> Any:
        """The command of that name; with the options that many share: a default device, JSON in a table's place."""
        about = function.__doc__
        sub = commands.add_parser(function.__name__.strip("_"), help=about, description=about)
        sub.set_defaults(function=function)
        if device:
            sub.add_argument("--device", default=device, help="auto, cpu, cuda, cuda:N or mps")
        if table:
            sub.add_argument("--json", action="store_true", help="machine-readable")
        return sub

    def chosen(sub: argparse.ArgumentParser) -> None:
        """Which runs."""
        sub.add_argument("study", **study)
        sub.add_argument("--profile", default="laptop", **profile)
        sub.add_argument("--seeds", type=int, metavar="N", help="only the first N seeds")
        sub.add_argument("--only", action="append", default=[], metavar="KEY=VALUE", help="only runs with this label")

    sub = command(_list, table=True)
    sub.add_argument("what", nargs="?", choices=("layers", "models", "datasets", "studies", "metrics", "profiles"))

    sub = command(_run, "auto")
    chosen(sub)
    sub.add_argument("--workers", type=int, metavar="W", help="processes (default: one per core, or one per GPU)")
    sub.add_argument("--shard", type=_shard, metavar="I/N", help="only every N-th run, beginning with the I-th")
    sub.add_argument("--limit-minutes", type=float, metavar="M", help="start no run after M minutes")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")

    sub = command(_campaign, "auto")
    sub.add_argument("--profile", default="gpu", **profile)
    sub.add_argument("--budget", type=float, default=540, metavar="SECONDS", help="in all (default 540)")
    sub.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for records, checks, times and log")

    sub = command(_submit, "auto")
    chosen(sub)
    sub.add_argument("--tasks", type=int, default=1, metavar="N", help="shards of the runs (default 1)")
    sub.add_argument("--processes", type=int, default=1, metavar="P", help="GPUs that train one network (default 1)")
    sub.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="as --sbatch=--time=1:00")
    sub.add_argument("--dry-run", action="store_true", help="print the script and submit nothing")

    sub = command(_status, table=True)
    sub.add_argument("study", nargs="?", **study)
    sub.add_argument("--runs", action="store_true", help="every run of a profile (default desktop) in order of value")
    sub.add_argument("--profile", **profile)

    sub = command(_publish)
    sub.add_argument("study", **study)
    sub.add_argument("--profile", **profile)
    sub.add_argument("--out", type=Path, metavar="FILE", help="another file to merge into")
    sub.add_argument("--weights", type=int, default=0, metavar="N", help="keep the first N networks, in data/weights")

    sub = command(_verify, "cpu", True)
    sub.add_argument("id", metavar="ID", help="of the record, or its beginning")

    sub = command(_findings)
    sub.add_argument("--study", **study)
    sub.add_argument("--profile", **profile)
    sub.add_argument("--claim", metavar="ID", help="all there is about one finding, such as zhang-5")
    formats = sub.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="machine-readable, a row per test")
    formats.add_argument("--csv", action="store_true", help="the same as comma-separated values")

    sub = command(_diagnose, "auto", True)
    about = "of torchvision or timm, module:factory, or a tuned file; NAME+LAYER anti-aliases"
    sub.add_argument("model", metavar="MODEL", help=about)
    sub.add_argument("--images", required=True, type=Path, metavar="FOLDER", help="pictures, nested as they may be")
    about = "more networks, side by side"
    sub.add_argument("--compare", nargs="+", action="extend", default=[], metavar="MODEL2", help=about)
    sub.add_argument("--report", type=Path, metavar="FILE.html", help="write a page with pictures and curves")
    sub.add_argument("--count", type=int, default=200, metavar="N", help="pictures (default 200)")
    sub.add_argument("--size", type=int, metavar="N", help="side of the input in pixels (default: the network's own)")
    about = "of safetensors or torch.save; 'pretrained' (default), 'none' for random ones; repeat it for each network"
    sub.add_argument("--weights", action="append", default=argparse.SUPPRESS, metavar="FILE", help=about)

    sub = command(_finetune, "auto", True)
    sub.add_argument("network", metavar="NETWORK+LAYER", help="as for diagnose, such as resnet18+tri-3")
    sub.add_argument("--images", required=True, type=Path, metavar="FOLDER", help="50 pictures or more")
    sub.add_argument("--out", required=True, type=Path, metavar="FILE.safetensors", help="must not exist yet")
    sub.add_argument("--epochs", type=float, default=1, metavar="E", help="passes over the pictures (default 1)")
    sub.add_argument("--minutes", type=float, metavar="M", help="train about so long, both networks together")
    about = "largest learning rate; more than the default, 0.0003, keeps fewer of the original's answers"
    sub.add_argument("--lr", type=float, default=argparse.SUPPRESS, metavar="RATE", help=about)
    sub.add_argument(
        "--batch-size", type=int, default=argparse.SUPPRESS, metavar="N", help="windows per step (default 32)"
    )
    sub.add_argument("--size", type=int, metavar="N", help="side of the windows in pixels (default: the network's own)")
    sub.add_argument("--weights", default="pretrained", metavar="FILE", help="as for diagnose")

    sub = command(_bench, "cpu", True)
    sub.add_argument("what", nargs="?", choices=_BENCHES)
    sub.add_argument("--quick", action="store_true", help="small sizes, to see that it works; the ratios mean nothing")
    sub.add_argument("--repeats", type=int, default=5, metavar="N", help="timed turns per case (default 5)")
    sub.add_argument("--out", type=Path, metavar="FILE", help="write everything as JSON")

    sub = command(_data)
    sub.add_argument("name", help="as aliasing list datasets names it")
    sub.add_argument("--root", type=Path, metavar="DIR", help="where archives are (default: ALIASING_DATA)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    keep_freed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names are of any encoding, terminals of one
            stream.reconfigure(errors="backslashreplace")

    def warn(message: Warning | str, *place: Any, **more: Any) -> None:
        print(f"aliasing {arguments.command}: warning: {message}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = warn
            if getattr(arguments, "profile", None) is not None:
                check_profile(arguments.profile)
            status = arguments.function(arguments) or 0
            sys.stdout.flush()  # what cannot be written is said here, and not when Python ends
            return status
    except (UsageError, DataError) as error:
        status, said = 2 if isinstance(error, UsageError) else 1, str(error)
    except ModuleNotFoundError as error:
        if (reason := missing(error)) is error:
            raise
        status, said = 1, str(reason)
    except OSError as error:
        if error.filename is not None:
            places = "the folders that ALIASING_RUNS, ALIASING_DATA and ALIASING_CACHE name are to exist, or to be made"
            status, said = 1, f"{error.filename}: {error.strerror}; {places}"
        elif error.errno in (errno.EPIPE, errno.ENOSPC):  # of standard output, as a rule
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if error.errno == errno.EPIPE:  # the reader, such as head, has seen enough
                return 1
            status, said = 1, f"cannot write ({error.strerror}); make room"
        else:
            raise
    except KeyboardInterrupt:
        again = "; what is finished is kept; run the same command again to continue"
        status, said = 130, "stopped" + (again if arguments.command in ("run", "campaign", "finetune") else "")
    print(f"aliasing {arguments.command}: {said}", file=sys.stderr)
    return status
