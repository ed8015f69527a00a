"""Run huggingface_hub's own tests against the local Hub, and say what passes.

    python scripts/hub_conformance.py CHECKOUT            the table, then failures by cause
    python scripts/hub_conformance.py CHECKOUT -k branch  more arguments go to pytest

CHECKOUT is a checkout of huggingface_hub's repository at the version that is installed (its sdist
has no conftest.py). It is copied, and only the constants that name the server and its users are
changed. The tests need pytest-mock beside ftq's own tools. Tests marked `production` name hosts
outside and are left out. Exit code 1: something failed whose cause is not listed here.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import trustme

from ftq_hub import HubApp, HubStore, Tls, running

FILES = (
    "test_hf_api",
    "test_commit_api",
    "test_file_download",
    "test_snapshot_download",
    "test_hf_file_system",
    "test_lfs",
    "test_repocard",
    "test_upload_large_folder",
    "test_utils_errors",
    "test_utils_pagination",
    "test_verification",
    "test_xet_download",
    "test_xet_upload",
)
USER, OTHER, ENTERPRISE, ORG = "dummy-user", "other-user", "enterprise-admin", "enterprise-org"
# Whose cause each failure is: a pattern over the test's name and the end of its report.
CAUSES = {
    r"Discussion|PullRequest|create_pr|pull_request|refs/pr|no pull requests|refs%2Fpr": (
        "no pull requests here, nor discussions: ftq uses none"
    ),
    r"super_squash|SuperSquash": "no squashing of a history: ftq never does it",
    r"lfs[-_]files|LfsFiles|permanently_delete": "no list of stored large files: ftq deletes none",
    r"(?i)access_?request": "no lists of people who ask for access",
    r"private_by_default": "no organisations whose repos are private unless they say otherwise",
    r"(?i)webhook|collection|likes?\b|ListLikes|follow|papers?|organization|user_overview": (
        "no web page behind it: no likes, webhooks, collections, papers or profiles"
    ),
    r"(?i)space|kernel|bucket|sandbox|\bjobs?\b|inference|resource_group|duplicate": (
        "models and datasets only"
    ),
    r"Dummy User": "users have no other name than their login",
    r"huggingface\.co|hf\.co|hub-ci|Name or service not known|name resolution": (
        "asks a host outside by its name"
    ),
}


@dataclass(frozen=True)
class Result:
    """One test: `outcome` is passed, failed or skipped."""

    file: str
    name: str
    outcome: str
    report: str = ""

    @property
    def cause(self) -> str:
        """Why it fails, empty when nobody has said so yet."""
        text = f"{self.name}\n{last_words(self.report)}"
        return next((why for pattern, why in CAUSES.items() if re.search(pattern, text)), "")


def prepare(checkout: Path, work: Path, url: str) -> Path:
    """Return a copy of the tests whose constants name this server."""
    tests = work / "huggingface_hub" / "tests"
    shutil.copytree(checkout / "tests", tests)
    shutil.copy(checkout / "pyproject.toml", tests.parent)
    with (tests / "testing_constants.py").open("a") as constants:
        for name, value in {
            "ENDPOINT_STAGING": url,
            "USER": USER,
            "OTHER_USER": OTHER,
            "ENTERPRISE_USER": ENTERPRISE,
            "ENTERPRISE_ORG": ORG,
        }.items():
            constants.write(f"{name} = {value!r}\n")
    return tests


def add_users(store: HubStore, checkout: Path) -> None:
    """Let the tests' own tokens in."""
    text = (checkout / "tests" / "testing_constants.py").read_text()
    users = {"TOKEN": USER, "OTHER_TOKEN": OTHER, "ENTERPRISE_TOKEN": ENTERPRISE}
    for name, user in users.items():
        if found := re.search(rf'^{name} = "(.*)"$', text, re.MULTILINE):
            roles = {ORG: "admin"} if user == ENTERPRISE else {"valid_org": "write"}
            store.add_token(found[1], user, orgs=roles)


def run_tests(tests: Path, url: str, ca: Path, more: list[str]) -> list[Result]:
    """Run the files that are there, each test with 120 s at most, and read their results."""
    report = tests.parent / "report.xml"
    names = [f"tests/{name}.py" for name in FILES if (tests / f"{name}.py").is_file()]
    kept = {key: text for key, text in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "--timeout=120"]
    command += ["-m", "not production", f"--junitxml={report}", "-p", "no:cacheprovider"]
    subprocess.run(
        [*command, *names, *more],
        cwd=tests.parent,
        env=kept
        | {
            "HF_ENDPOINT": url,
            "HF_HOME": str(tests.parent / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "SSL_CERT_FILE": str(ca),
        },
        stdout=sys.stderr,
        check=False,
    )
    return [_result(case) for case in ET.parse(report).iter("testcase")]  # noqa: S314  our own


def _result(case: ET.Element) -> Result:
    trouble = next((e for e in case if e.tag in ("failure", "error", "skipped")), None)
    names = {None: "passed", "skipped": "skipped"}
    outcome = names.get(trouble.tag if trouble is not None else None, "failed")
    report = f"{trouble.get('message')}\n{trouble.text or ''}" if trouble is not None else ""
    where = case.get("classname", "").removeprefix("tests.")
    return Result(where.split(".")[0], f"{where}::{case.get('name')}", outcome, report)


def show(results: list[Result]) -> int:
    """Print a table by file, then the failures by cause; return how many have none."""
    counts = Counter((result.file, result.outcome) for result in results)
    print("| file | passed | failed | skipped |\n| --- | --- | --- | --- |")
    for file in dict.fromkeys(result.file for result in results):
        row = [str(counts[file, outcome]) for outcome in ("passed", "failed", "skipped")]
        print(f"| {file} | {' | '.join(row)} |")
    by_cause = defaultdict(list)
    for result in results:
        if result.outcome == "failed":
            by_cause[result.cause].append(result)
    for cause, failed in sorted(by_cause.items()):
        print(f"\n{cause or 'LOOK AT THESE'} ({len(failed)})")
        for result in failed:
            why = "" if cause else f"\n    {last_words(result.report)}"
            print(f"  {result.name}{why}")
    return len(by_cause[""])


def last_words(report: str) -> str:
    """Return what a report ends in: the error's own lines, without the code above them."""
    errors = [line[1:].strip() for line in report.splitlines() if line.startswith("E  ")]
    return " / ".join(errors)[-600:] or report.strip()[-300:]


def main() -> int:
    """Serve an empty Hub, run the tests against it, print what came out."""
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / "tests" / "conftest.py").is_file():
        sys.stderr.write(f"{__doc__}\n")
        return 2
    checkout = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        work, ca = Path(scratch), trustme.CA()
        made = ca.issue_cert("127.0.0.1")
        ca.cert_pem.write_to_path(work / "ca.pem")
        made.private_key_pem.write_to_path(work / "key.pem")
        made.cert_chain_pems[0].write_to_path(work / "cert.pem")
        store = HubStore(work / "store")
        add_users(store, checkout)
        with running(HubApp(store), tls=Tls(work / "cert.pem", work / "key.pem")) as url:
            tests = prepare(checkout, work, url)
            return 1 if show(run_tests(tests, url, work / "ca.pem", sys.argv[2:])) else 0


if __name__ == "__main__":
    sys.exit(main())
