"""What a command compiles, kept for the next: JAX's persistent cache in a folder of the user."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import parameters_of, with_parameters

FOLDER = "LRPJAX_CACHE"  # the variable that names another folder
MOST = 2**30  # bytes that are kept

CacheOption = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Compile all anew. What is compiled is kept for the next run, up to 1 GiB, in the "
        f"user's cache folder or that of {FOLDER}; JAX_COMPILATION_CACHE_DIR takes its place.",
    ),
]


def caching(command: Callable[..., None]) -> Callable[..., None]:
    """The command with `--no-cache`, which keeps what it compiles without it."""

    @wraps(command)
    def run(*, no_cache: bool, **options: Any) -> None:
        _use(None if no_cache else _folder())
        command(**options)

    keyword = inspect.Parameter.KEYWORD_ONLY
    option = inspect.Parameter("no_cache", keyword, default=False, annotation=CacheOption)
    return with_parameters(run, [*parameters_of(command), option])


def _use(folder: Path | None) -> None:
    """Sets JAX's persistent cache, unless the user has."""
    import jax

    if folder is None:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a command runs without what it cannot have
        return
    _bound(folder)
    # What only takes longer to compile than this is written: in a folder of others, nothing.
    least = 0.0 if os.access(folder, os.W_OK) else float("inf")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # A damaged entry or a full disk costs a compilation, and nothing that a user has to mend.
    warnings.filterwarnings("ignore", r"Error (reading|writing) persistent compilation cache")


def _folder() -> Path:
    """Of this processor alone: unlike machines may share a home, and code is for one kind."""
    if named := os.environ.get(FOLDER):
        root = Path(named)
    else:
        import platformdirs

        root = platformdirs.user_cache_path("lrpjax", appauthor=False)
    return root / f"compiled-{_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = {line for line in lines if line.startswith(("flags", "Features"))}
    told = (platform.machine(), platform.processor(), *sorted(features))
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


def _bound(folder: Path, most: int = MOST) -> None:
    """Removes what was used longest ago, where more is kept than may be."""
    found = []
    for file in folder.glob("*-cache"):
        try:
            about = file.stat()
        except OSError:  # another process has removed it
            continue
        found.append((max(about.st_atime, about.st_mtime), about.st_size, file))
    left = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if left <= most:
            break
        try:
            file.unlink()
        except OSError:
            continue
        left -= size
