"""However the process that builds ends, the caller gets an engine or an error with words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pointrend_deploy.engine.build import run_worker
from pointrend_deploy.engine.job import Built, Job
from pointrend_deploy.errors import DeployError
from pointrend_deploy.progress import Silent

SAY = "import os, sys, signal, json; say = lambda **m: os.write(int(sys.argv[2]), " + (
    "(json.dumps(m) + '\\n').encode()); job = json.load(open(sys.argv[1])); "
)
BUILT = "say(type='built', version='10.3.0', plugins=3, timings_reused=False)"


class Counting(Silent):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        def advance() -> None:
            self.count += 1

        assert total == 100
        yield advance


def run(tmp_path: Path, program: str, progress: Silent | None = None) -> Built:
    job = Job(
        module="tensorrt",
        capability=None,
        graph="model.onnx",
        engine=str(tmp_path / "model.engine"),
        log=str(tmp_path / "build.log"),
        layers=str(tmp_path / "layers"),
        timing_cache=str(tmp_path / "timing.cache"),
        workspace_mib=1,
    )
    worker = (sys.executable, "-c", SAY + program)
    return run_worker(job, tmp_path, progress or Silent(), "TensorRT", worker)


def test_an_engine(tmp_path: Path) -> None:
    progress = Counting()
    built = run(
        tmp_path,
        "say(type='phase', name='e', parent=None, steps=4); say(type='step', name='e', index=1); "
        f"open(job['engine'], 'wb').write(b'e'); {BUILT}; os._exit(0)",
        progress,
    )
    assert built == Built("10.3.0", 3)
    assert progress.count == 50


@pytest.mark.parametrize(
    ("program", "words", "hint"),
    [
        ("os.abort()", r"ended the process \(SIGABRT\)", "docs/engine.md"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"\(SIGSEGV\)", "docs/engine.md"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed.*memory runs out", "--workspace-mib"),
        ("sys.exit(7)", "ended with 7 and no engine", "docs/engine.md"),
        ("raise RuntimeError('broken')", "ended with 1 .*RuntimeError: broken", "docs/engine.md"),
        ("say(type='failed', message='no such op', hint='use another')", "no such op", "another"),
        (BUILT, "ended with 0 and no engine", "docs/engine.md"),
        ("os.write(int(sys.argv[2]), b'{half'); os.abort()", "SIGABRT", "docs/engine.md"),
        (
            "print('[I] fine'); print('[E] Out of memory: 9 GiB', flush=True); os.abort()",
            r"SIGABRT\); its last words: \[E\] Out of memory: 9 GiB$",
            "--workspace-mib",
        ),
        (
            "sys.stderr.write('terminate called'); sys.stderr.flush(); os.abort()",
            "its last words: terminate called",
            "docs/engine.md",
        ),
    ],
)
def test_an_end_without_one(tmp_path: Path, program: str, words: str, hint: str) -> None:
    with pytest.raises(DeployError, match=f"(?m){words}") as caught:
        run(tmp_path, program)
    assert hint in caught.value.hint


def test_the_words_of_an_earlier_build_are_not_this_ones(tmp_path: Path) -> None:
    (tmp_path / "build.log").write_text("[E] of another graph\n")
    with pytest.raises(DeployError) as caught:
        run(tmp_path, "sys.exit(1)")
    assert "another graph" not in caught.value.message


def test_an_interrupted_caller_leaves_no_builder_behind(tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    class Stopping(Silent):
        @contextmanager
        def step(self, text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
            def advance() -> None:
                raise Stop

            yield advance

    with pytest.raises(Stop):
        run(
            tmp_path,
            "import time; open(job['layers'], 'w').write(str(os.getpid())); "
            "say(type='phase', name='e', parent=None, steps=1); "
            "say(type='step', name='e', index=0); time.sleep(60)",
            Stopping(),
        )
    pid = int((tmp_path / "layers").read_text())
    assert not Path(f"/proc/{pid}").exists()
