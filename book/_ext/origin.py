"""Where this copy of the repository lives on the web, found when something is built: the tree names no address.

What the caller says comes first (``make book SOURCE=... SITE=...``, as ``BOOK_SOURCE`` and ``BOOK_SITE``), then the
environment of a workflow (GitHub's, GitLab's), then the remote ``origin`` of the checkout. If none of them names a host
on the web, nothing is known, and links to the repository are left out.
"""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

# How hosts address a file, its bytes, its editor and a new issue. {ref} is a branch, {path} a path or a title.
STYLES = {
    "github": {
        "file": "blob/{ref}/{path}",
        "raw": "raw/{ref}/{path}",
        "edit": "edit/{ref}/{path}",
        "issue": "issues/new?title={path}",
    },
    "gitlab": {
        "file": "-/blob/{ref}/{path}",
        "raw": "-/raw/{ref}/{path}",
        "edit": "-/edit/{ref}/{path}",
        "issue": "-/issues/new?issue%5Btitle%5D={path}",
    },
    "forgejo": {  # Codeberg's software
        "file": "src/branch/{ref}/{path}",
        "raw": "raw/branch/{ref}/{path}",
        "edit": "_edit/{ref}/{path}",
        "issue": "issues/new?title={path}",
    },
}
PAGES = {"github.com": "github.io", "gitlab.com": "gitlab.io", "codeberg.org": "codeberg.page"}
HOSTS = {"github": "github", "gitlab": "gitlab", "codeberg": "forgejo", "forgejo": "forgejo", "gitea": "forgejo"}


@dataclass(frozen=True)
class Origin:
    """The address of the repository, that of the published pages, the branch, and the style of the host's addresses.

    Without a style, as for a host of unknown software, only the repository itself can be linked to.
    """

    source: str | None = None
    site: str | None = None
    branch: str = "main"
    style: str | None = None

    def to(self, what: str, path: str) -> str | None:
        """The ``file`` or folder ``path``, the bytes of it (``raw``), the host's editor on it (``edit``), or, with a
        title for a path, a new ``issue``.
        """
        if not self.source or not self.style:
            return None
        return f"{self.source}/{STYLES[self.style][what].format(ref=quote(self.branch), path=quote(path))}"

    def launch(self, notebook: str) -> dict[str, str]:
        """Services that open the notebook at this path of the repository, by name."""
        if not self.source or not self.style:
            return {}
        host, path = urlsplit(self.source).netloc, urlsplit(self.source).path.strip("/")
        kinds = {"github.com": f"gh/{path}", "gitlab.com": f"gl/{quote(path, safe='')}"}
        kind = kinds.get(host, f"git/{quote(self.source, safe='')}")
        place = f"{kind}/{quote(self.branch, safe='')}?urlpath=lab/tree/{quote(notebook)}"
        found = {"Binder": f"https://mybinder.org/v2/{place}"}
        if host == "github.com":
            found["Colab"] = (
                f"https://colab.research.google.com/github/{path}/blob/{quote(self.branch)}/{quote(notebook)}"
            )
        return found


def web_address(remote: str) -> str | None:
    """The page of the repository behind a remote: ``git@host:owner/name.git``, ``ssh://...``, ``https://...``.

    Without user names and passwords. ``None`` for folders, files, and hosts that are not on the web.
    """
    remote = remote.strip()
    if re.match(r"(https?|ssh|git)://", remote):
        parts = urlsplit(remote)
        host, path = parts.hostname or "", parts.path
        web = parts.scheme if parts.scheme.startswith("http") else "https"
        port = f":{parts.port}" if parts.port and parts.scheme.startswith("http") else ""
    else:  # scp's form; a folder has no colon before its first slash
        host, colon, path = remote.rpartition("@")[2].partition(":")
        web, port = "https", ""
        if not colon:
            return None
    path = path.strip("/").removesuffix(".git")
    on_the_web = re.fullmatch(r"[\w-]+(\.[\w-]+)*\.[a-z]{2,}", host.lower()) and re.fullmatch(
        r"[^\s/]+(/[^\s/]+)+", path
    )
    return f"{web}://{host.lower()}{port}/{path}" if on_the_web else None


def pages_address(source: str) -> str | None:
    """Where the host of a repository publishes its pages, for the hosts that are known to."""
    host, path = urlsplit(source).netloc, urlsplit(source).path.strip("/")
    owner, _, name = path.partition("/")
    if host not in PAGES:
        return None
    domain = f"{owner.lower()}.{PAGES[host]}"
    return f"https://{domain}/" if name.lower() == domain else f"https://{domain}/{name}/"


def find(root: Path, environment: Mapping[str, str]) -> Origin:
    """What is known of the checkout at ``root`` in this environment.

    Raises:
        ValueError: what the caller says is no address.
    """
    said, site = environment.get("BOOK_SOURCE"), environment.get("BOOK_SITE")
    workflow, style = None, None
    if environment.get("GITHUB_SERVER_URL") and environment.get("GITHUB_REPOSITORY"):
        workflow, style = f"{environment['GITHUB_SERVER_URL']}/{environment['GITHUB_REPOSITORY']}", "github"
    elif environment.get("CI_PROJECT_URL"):
        workflow, style = environment["CI_PROJECT_URL"], "gitlab"
        site = site or environment.get("CI_PAGES_URL")
    source = web_address(said or workflow or _git(root, "remote", "get-url", "origin"))
    if said and not source:
        raise ValueError(f"SOURCE must be the address of a repository, such as https://host/owner/name, got {said!r}")
    if site and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", site):
        raise ValueError(f"SITE must be the address of the pages, such as https://host/path/, got {site!r}")
    if not source:
        return Origin(site=site and site.rstrip("/") + "/")
    style = (not said and style) or HOSTS.get(urlsplit(source).netloc.partition(".")[0])
    site = (site or pages_address(source) or "").rstrip("/")
    return Origin(source, site + "/" if site else None, _branch(root, environment), style)


def _branch(root: Path, environment: Mapping[str, str]) -> str:
    """The branch that links follow: the one a workflow runs on, else the default branch of the remote."""
    if environment.get("GITHUB_REF_TYPE") == "branch" and not environment.get("GITHUB_HEAD_REF"):
        return environment["GITHUB_REF_NAME"]
    head = environment.get("CI_DEFAULT_BRANCH") or _git(root, "symbolic-ref", "--short", "refs/remotes/origin/HEAD")
    return head.removeprefix("origin/") or "main"


def _git(root: Path, *arguments: str) -> str:
    """What git answers, empty where it has no answer. A repository that merely contains ``root`` is not asked."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
        top = subprocess.run(["git", "-C", str(root), "rev-parse", "--show-toplevel"], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if not done.returncode and Path(top.stdout.strip()) == root.resolve() else ""
