"""Commands that stand in sentences lead to the data of the run that printed them: each is run word for word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from server.postgres.server import EmbeddedPostgres
from tests import ROOT
from tests.support.changed_artifacts import other_artifact
from tests.support.databases import discard
from tests.support.process import Serve


def run(command: str) -> tuple[int, str]:
    """A line as an operator in the checkout would give it to a shell: its exit code, and all that is printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TWINLENS_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    done = subprocess.run(
        command,
        shell=True,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**environment, "PATH": path},
    )
    return done.returncode, done.stdout


def command_in(said: str, words: str) -> str:
    """The command of a sentence, from `python` to the end of these words."""
    (found,) = set(re.findall(rf"python -m server (?:--\S+ (?:'[^']*'|\S+) )*{words}", said))
    assert isinstance(found, str)
    return found


def test_the_hint_of_a_refused_start_embeds_the_catalogue_that_was_refused(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "my shop"
    assert serve("--demo", "on", data=data, products=2).ready().stop() == 0
    other = other_artifact(tmp_path / "other model")
    refused = serve(data=data, model=tmp_path / "other model")
    assert refused.end() == 2
    code, said = run(command_in("".join(refused.log), r"reembed --artifact '[^']*'"))
    assert code == 0, said
    assert re.search(rf"{other[:12]} .* is live now", said)

    code, said = run(f"python -m server spaces switch --data '{data}'")
    assert code == 2
    code, said = run(command_in(said, "spaces"))
    assert (code, said.count("\n")) == (0, 2), said
    assert f"{other[:12]}  live" in said

    code, said = run(f"python -m server doctor --data '{data}'")
    assert "is no longer live" in said
    assert run(command_in(said.replace("\n  ", " "), "spaces"))[0] == 0


def test_the_hint_for_an_empty_database_migrates_that_one(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "data")
    try:
        with postgres:
            code, said = run(f"python -m server doctor --database-url '{postgres.url}'")
            assert code == 2
            code, said = run(command_in(said, "migrate"))
            assert code == 0
            assert "applied 0001" in said
            assert run(f"python -m server doctor --database-url '{postgres.url}'")[0] == 0
    finally:
        discard(postgres)
