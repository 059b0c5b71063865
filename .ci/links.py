"""The links of the project to other people's servers: found in all its files, checked against ``book/links.toml``.

``python .ci/links.py`` asks each of them and ends with 1 if one is gone. The tests ask nobody; they use ``outside`` and
``unlisted``.
"""

import re
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = re.compile(r"https?://[\w.-]+\.[a-z]{2,}(?::\d+)?(?:/[^\s\"'`<>\\{}|^]*)?", re.IGNORECASE)
DOI = re.compile(r"^\s*doi\s*=\s*[{\"]([^}\"]+)", re.MULTILINE | re.IGNORECASE)
# Tests show addresses that are wrong on purpose, lists of versions name none that a reader follows.
LEFT_OUT = ("tests/", "requirements.lock", "book/_static/")


def outside(root: Path = ROOT) -> dict[str, list[str]]:
    """Each address in the files that git knows, with the files that name it."""
    names = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[str]] = {}
    for name in filter(None, names.split("\0")):
        if name.startswith(LEFT_OUT) or not (root / name).is_file():
            continue
        try:
            text = (root / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture
            continue
        addresses = [f"https://doi.org/{doi}" for doi in DOI.findall(text)]
        for match in ADDRESS.finditer(text):
            parts = urlsplit(match[0])  # of a template, only the host
            addresses.append(f"{parts.scheme}://{parts.netloc}" if text[match.end() :][:1] == "{" else match[0])
        for address in addresses:
            address = address.rstrip(".,;:!?*_")
            address = address.rstrip(")]") if address.count("(") < address.count(")") else address.rstrip("]")
            found.setdefault(address, []).append(name)
    return found


def listed(root: Path = ROOT) -> dict[str, str]:
    """The hosts that links may lead to, each with the reason."""
    return tomllib.loads((root / "book/links.toml").read_text(encoding="utf-8"))["hosts"]


def unlisted(root: Path = ROOT) -> dict[str, list[str]]:
    """Addresses whose host is not listed."""
    return {
        address: files for address, files in outside(root).items() if urlsplit(address).hostname not in listed(root)
    }


def answer(address: str) -> str:
    """What the server says: empty if the page is there; a refusal of robots counts as there."""
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (link check of a repository)"})
    for attempt in range(3):
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                response.read(1)
            return ""
        except urllib.error.HTTPError as error:
            if error.code in (401, 403, 405, 429, 503):
                return ""
            problem = f"{error.code} {error.reason}"
        except (OSError, ValueError) as error:
            problem = str(error)
        time.sleep(5 * (attempt < 2))
    return problem


if __name__ == "__main__":
    gone = {address: problem for address in sorted(outside()) if (problem := answer(address))}
    for address, problem in gone.items():
        print(f"{address}: {problem} ({', '.join(sorted(set(outside()[address])))})")
    sys.exit(bool(gone))
