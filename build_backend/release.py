"""Build a release from HEAD into dist/, twice, and use it from empty folders: `make release`. docs/release.md explains it.

It publishes nothing. It needs the tools that `make release` installs, npm, and package registries. Images are built where a
container engine runs.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
DIST: Final = ROOT / "dist"
PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
VERSION: Final[str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
IMAGES: Final = {"": f"psp-sandbox:{VERSION}", "all-in-one": f"psp-sandbox:{VERSION}-all-in-one"}
"""Target of the Dockerfile → image."""
_READY_SECONDS: Final = 120


def main() -> None:
    """Write dist/. Raises SystemExit with one line if something is not as it must be."""
    if run("git", "status", "--porcelain"):
        sys.exit("release: commit first; a release is built from HEAD.")
    check_versions(ROOT)
    with tempfile.TemporaryDirectory(prefix="psp-release-") as name:
        work = Path(name)
        first, second = (build(work / attempt) for attempt in ("first", "second"))
        if differing := sorted(path for path in digests(first).items() ^ digests(second).items()):
            sys.exit(f"release: two builds differ in {', '.join(dict.fromkeys(path for path, _ in differing))}.")
        say("two builds gave the same bytes")
        check(first, work / "first" / "source")
        use_python(first, work / "python")
        use_node(first, work / "node", work / "python" / "venv" / "bin")
        shutil.rmtree(DIST, ignore_errors=True)
        shutil.copytree(first, DIST)
    use_images()
    say(f"{DIST} is ready; docs/release.md says how to publish it")


def check_versions(folder: Path) -> None:
    """Check that all files name the version of pyproject.toml. Raises SystemExit if not."""
    package = json.loads((folder / "clients/typescript/package.json").read_text(encoding="utf-8"))
    server = json.loads((folder / "server.json").read_text(encoding="utf-8"))
    found = {"package.json": package["version"], "server.json": server["version"]}
    found["the package of server.json"] = server["packages"][0]["version"]
    if wrong := {name: version for name, version in found.items() if version != VERSION}:
        sys.exit(f"release: pyproject.toml has version {VERSION}, but {wrong}.")


def build(folder: Path) -> Path:
    """Build everything from a copy of HEAD, and return the folder with it."""
    source, out = folder / "source", folder / "out"
    source.mkdir(parents=True)
    out.mkdir()
    archive = folder / "source.tar"
    run("git", "archive", "--output", str(archive), "HEAD")
    with tarfile.open(archive) as tar:
        tar.extractall(source, filter="data")
    epoch = run("git", "log", "-1", "--format=%ct")
    fixed = {"SOURCE_DATE_EPOCH": epoch, "TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
    os.umask(0o022)
    # The wheel is built from the source archive, so the archive is complete.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), cwd=source, **fixed)
    node = source / "clients/typescript"
    run("npm", "ci", "--no-audit", "--no-fund", cwd=node)
    run("npm", "pack", "--pack-destination", str(out), cwd=node, **fixed)
    write_sboms(source, out, int(epoch))
    write_notes(source, out, int(epoch))
    (out / "provenance.json").write_text(json.dumps(provenance(source, out, int(epoch)), indent=2) + "\n", encoding="utf-8")
    sums = "".join(f"{digest}  {name}\n" for name, digest in digests(out).items())
    (out / "SHA256SUMS").write_text(sums, encoding="utf-8")
    return out


def write_sboms(source: Path, out: Path, epoch: int) -> None:
    """Write what is installed with the Python package and its server, and with the npm package, as CycloneDX documents."""
    python = out / f"psp_sandbox-{VERSION}.cdx.json"
    options = (
        "--output-reproducible",
        "--output-format",
        "JSON",
        "--pyproject",
        "pyproject.toml",
        "--output-file",
        str(python),
    )
    run(sys.executable, "-m", "cyclonedx_py", "requirements", *options, "requirements.txt", cwd=source)
    node = source / "clients/typescript"
    found = json.loads(run("npm", "sbom", "--sbom-format", "cyclonedx", "--omit", "dev", "--omit", "peer", cwd=node))
    # npm has no option for a reproducible document.
    found.pop("serialNumber")
    found["metadata"]["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    (out / f"psp-sandbox-{VERSION}.npm.cdx.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def write_notes(source: Path, out: Path, epoch: int) -> None:
    """Write CHANGELOG.md with the section of this version, and RELEASE_NOTES.md with that section alone."""
    text = (source / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = f"## [{VERSION}] - {time.strftime('%Y-%m-%d', time.gmtime(epoch))}"
    if f"## [{VERSION}]" not in text:
        text = text.replace("## [Unreleased]", f"## [Unreleased]\n\n{heading}", 1)
        text = text.replace(f"Version {VERSION} has not been published. This is what it contains.\n\n", "", 1)
    section = re.split(r"(?m)^## .*\n", text.partition(f"## [{VERSION}]")[2].partition("\n")[2])[0]
    (out / "CHANGELOG.md").write_text(text, encoding="utf-8")
    (out / "RELEASE_NOTES.md").write_text(f"# PSP Sandbox {VERSION}\n\n{section.strip()}\n", encoding="utf-8")


def provenance(source: Path, out: Path, epoch: int) -> dict[str, Any]:
    """Return an unsigned in-toto statement with SLSA's provenance: which files were built from which commit."""
    locks = ("requirements.txt", "requirements-build.txt", "clients/typescript/package-lock.json")
    built = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in digests(out).items()],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:psp-sandbox:make-release",
                "externalParameters": {"version": VERSION},
                "resolvedDependencies": [
                    {"uri": "git+commit", "digest": {"gitCommit": run("git", "rev-parse", "HEAD")}},
                    *({"uri": f"file:{name}", "digest": {"sha256": digest_of(source / name)}} for name in locks),
                ],
            },
            "runDetails": {"builder": {"id": "urn:psp-sandbox:local"}, "metadata": {"startedOn": built, "finishedOn": built}},
        },
    }


def check(out: Path, source: Path) -> None:
    """Check the packages as the registries and their users' tools will. Raises SystemExit if a tool finds something."""
    wheel, sdist, package = (str(one(out, pattern)) for pattern in ("*.whl", "*.tar.gz", "*.tgz"))
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    run(sys.executable, "-m", "check_wheel_contents", "--ignore", "W002", wheel)  # W002: empty __init__.py files are alike
    node = source / "clients/typescript"
    run("npx", "--no-install", "publint", package, cwd=node)
    run("npx", "--no-install", "attw", "--profile", "esm-only", package, cwd=node)
    say("twine, check-wheel-contents, publint and attw found nothing")


def use_python(out: Path, folder: Path) -> None:
    """Install the wheel from a local index into empty environments, and run the first test of docs/start.md in each.

    One has the sandbox too. The other has only the client and the plugin, and finds the `psp` of the first one.
    """
    index, tests = folder / "index", folder / "project"
    tests.mkdir(parents=True)
    (folder / "tests.txt").write_text("\n".join(pins("requirements-dev.txt", "iniconfig|packaging|pluggy|pygments|pytest")))
    for locked in (ROOT / "requirements.txt", folder / "tests.txt"):
        run(*PIP, "download", "--no-deps", "--require-hashes", "--dest", str(index), "-r", str(locked))
    (tests / "test_returns.py").write_text(block("start.md", "# test_returns.py"), encoding="utf-8")
    path = f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for venv, package in (("venv", "psp-sandbox[server]"), ("thin", "psp-sandbox")):
        run(sys.executable, "-m", "venv", str(folder / venv))
        python = str(folder / venv / "bin" / "python")
        given = ("--no-index", "--find-links", str(index), "--find-links", str(out), f"{package}=={VERSION}", "pytest")
        run(python, *PIP[1:], "install", *given)
        if "1 passed" not in run(python, "-m", "pytest", "-p", "no:cacheprovider", cwd=tests, PATH=path):
            sys.exit(f"release: the first test of docs/start.md did not run with {package}.")
    say("the wheel works in empty environments, with the sandbox and without")


def use_node(out: Path, folder: Path, path: Path) -> None:
    """Install the npm package in an empty folder, and run the first test of docs/node.md with the `psp` that is in `path`."""
    folder.mkdir()
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    vitest = json.loads((ROOT / "clients/typescript/package.json").read_text(encoding="utf-8"))["devDependencies"]["vitest"]
    run("npm", "install", "--no-audit", "--no-fund", str(one(out, "*.tgz")), f"vitest@{vitest}", cwd=folder)
    (folder / "returned.test.js").write_text(block("node.md", "// returned.test.js"), encoding="utf-8")
    run("npx", "--no-install", "vitest", "run", cwd=folder, PATH=f"{path}{os.pathsep}{os.environ['PATH']}")
    say("the npm package works in an empty folder")


def use_images() -> None:
    """Build both images, and wait until the one for tests is healthy, if a container engine runs."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run((docker, "version"), capture_output=True, check=False).returncode != 0:  # noqa: S603 -- fixed arguments
        say("no container engine runs, so no image was built")
        return
    for target, image in IMAGES.items():
        run("docker", "build", *(("--target", target) if target else ()), "--tag", image, ".")
    key = f"SANDBOX_ADMIN_KEY=ak_{os.urandom(16).hex()}"
    started = run("docker", "run", "--detach", "--env", key, IMAGES["all-in-one"])
    try:
        end = time.monotonic() + _READY_SECONDS
        while run("docker", "inspect", "--format", "{{.State.Health.Status}}", started) != "healthy":
            if time.monotonic() > end:
                sys.exit("release: the image for tests does not get healthy.")
            time.sleep(0.5)
    finally:
        run("docker", "rm", "--force", started)
    say(f"images {' and '.join(IMAGES.values())} are built; `make containers` tests them")


def run(*command: str, cwd: Path = ROOT, **variables: str) -> str:
    """Run a command, and return its output. Raises SystemExit with all that it wrote if it fails."""
    environment: Mapping[str, str] = {**os.environ, **variables}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 -- our own commands
    if done.returncode != 0:
        sys.exit(f"release: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a folder, by name."""
    return {path.name: digest_of(path) for path in sorted(folder.iterdir())}


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def one(folder: Path, pattern: str) -> Path:
    """Return the one file that matches. Raises ValueError if there are more or none."""
    (found,) = folder.glob(pattern)
    return found


def pins(name: str, packages: str) -> Sequence[str]:
    """Return the lines of a lock file for these packages, a regular expression of names."""
    return re.findall(rf"(?m)^(?:{packages})==.*\n(?: +--hash=.*\n)+", (ROOT / name).read_text(encoding="utf-8"))


def block(page: str, first_line: str) -> str:
    """Return the code block of a page of docs/ that starts with a line. Raises SystemExit if there is none."""
    found = re.search(rf"(?ms)^```\w+\n({re.escape(first_line)}\n.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    return found[1] if found else sys.exit(f"release: docs/{page} has no block that starts with {first_line}")


def say(text: str) -> None:
    """Print what has been done."""
    sys.stdout.write(f"release: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
