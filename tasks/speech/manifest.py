"""A folder of audio, or a manifest, as one table of clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...tokenizers.errors import UserError
from ..data import SPLITS, seed_of
from ..files import files_below, separator_of

if TYPE_CHECKING:
    import pandas as pd

#: The clips that ship with the package; `path: samples` names them.
SAMPLES = Path(__file__).parents[2] / "samples" / "speech" / "manifest.csv"
MANIFESTS = (".csv", ".tsv", ".jsonl", ".parquet")


def read_clips(path: str | Sequence[str]) -> pd.DataFrame:
    """The clips of folders, manifests and files, one row each.

    Columns: `path` (absolute), `name` (as given), `within` (its place in its root), `start` and `end` in
    seconds (0 and NaN: the whole file), and whichever of `text`, `label`, `language`, `speaker`, `corpus`,
    `split` and others the manifest has, as text. Of several roots, each is a `corpus` called as it was
    given, unless its manifest says otherwise, and what some of them lack is empty.

    Args:
        path: a folder, searched through for audio files; a manifest (CSV, TSV, JSONL, Parquet)
            with a column `path`, relative to the manifest; one audio file; `samples`; or several.

    Raises:
        UserError: nothing is there, there is no audio in the folder, or no such column.
    """
    if isinstance(path, str):
        return _read_root(path)
    import pandas as pd

    tables = []
    for root in path:
        table = _read_root(root)
        table["name"] = table["path"]
        tables.append(table if "corpus" in table else table.assign(corpus=root))
    if not tables:
        raise UserError("data.path must name at least one folder of audio or manifest, but is empty")
    joined = pd.concat(tables, ignore_index=True)
    for column in joined.columns.difference(["start", "end"]):
        joined[column] = joined[column].fillna("")
    return joined


def _read_root(path: str) -> pd.DataFrame:
    import pandas as pd

    where = SAMPLES if path == "samples" else Path(path).expanduser()
    if where.is_dir():
        table = _read_folder(where)
    elif where.is_file() and where.suffix.lower() in audio_suffixes():
        table = pd.DataFrame({"path": [where.name], "start": 0.0, "end": float("nan")})
    elif where.is_file():
        table = _read_manifest(where)
    else:
        raise UserError(f"data.path must be a folder of audio or a manifest, but {path!r} does not exist")
    table["within"] = table["name"] = table["path"].astype(str)
    root = (where if where.is_dir() else where.parent).absolute()
    table["path"] = [str(root / name) for name in table["name"]]
    return table.reset_index(drop=True)


def audio_suffixes() -> set[str]:
    """Suffixes of the files that libsndfile may read, with their dots, in lower case."""
    import soundfile

    return {f".{name.lower()}" for name in soundfile.available_formats()} | {".opus", ".oga", ".aif"}


def _read_folder(folder: Path) -> pd.DataFrame:
    import pandas as pd

    names = [file.relative_to(folder).as_posix() for file in files_below(folder, audio_suffixes())]
    if not names:
        raise UserError(f"data.path must hold audio files, but the folder {str(folder)!r} has none")
    table = pd.DataFrame({"path": names, "start": 0.0, "end": float("nan")})
    tops = [name.split("/")[0] for name in names]
    if set(tops) <= set(SPLITS):
        table["split"] = tops
    return table


def _read_manifest(file: Path) -> pd.DataFrame:
    import pandas as pd

    if file.suffix.lower() not in MANIFESTS:
        raise UserError(f"a manifest must end in {', '.join(MANIFESTS)}, but is {str(file)!r}")
    try:
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(file)
        elif file.suffix.lower() == ".jsonl":
            table = pd.read_json(file, lines=True, dtype=False)
        else:
            separator = "\t" if file.suffix.lower() == ".tsv" else separator_of(file)
            table = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the manifest {str(file)!r} must be UTF-8, but byte {error.start} is not: save it as CSV UTF-8"
        ) from None
    except (ValueError, OSError) as error:  # pandas' and pyarrow's parser errors are ValueErrors
        raise UserError(f"the manifest {str(file)!r} must be a table, but cannot be read: {error}") from None
    if "path" not in table or not len(table):
        found = f"has only {', '.join(map(str, table.columns))}" if "path" not in table else "has no rows"
        raise UserError(f"the manifest {str(file)!r} must list clips in a column `path`, but {found}")
    for column, default in (("start", 0.0), ("end", float("nan"))):
        given = table[column] if column in table else pd.Series([None] * len(table))
        table[column] = _seconds(given, column, file).fillna(default)
    for column in table.columns.difference(["start", "end"]):
        table[column] = table[column].fillna("").astype(str)
    _check_splits(table, file)
    return table


def _seconds(given: pd.Series, column: str, file: Path) -> pd.Series:
    """Times of a column in seconds, NaN where it is empty."""
    import pandas as pd

    given = given.replace("", None)
    found = pd.to_numeric(given, errors="coerce").astype(float)
    bad = found.isna() & given.notna()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise UserError(
            f"expected seconds, such as 1.5, in the column {column!r} of {str(file)!r}, "
            f"but row {row + 1} holds {given.iloc[row]!r}"
        )
    return found


def _check_splits(table: pd.DataFrame, file: Path) -> None:
    unknown = sorted(set(table.get("split", ())) - set(SPLITS))
    if unknown:
        raise UserError(
            f"the column `split` of {str(file)!r} must hold {', '.join(SPLITS)}, but has {unknown[0]!r}"
        )


def split_by_hash(keys: list[str], val: float, test: float) -> list[str]:
    """A split for each key, the same for equal keys, on every machine and in any order.

    Args:
        keys: what must stay together: prompt, speaker or file name of each clip.
        val, test: expected shares of the keys. Each split gets at least one key; fewer than three different
            keys are all `test`: enough to embed, too few to train.
    """
    place = {key: seed_of("split", key) / 2**63 for key in set(keys)}
    if len(place) < len(SPLITS):
        return ["test"] * len(keys)
    split = {key: "test" if p < test else "val" if p < test + val else "train" for key, p in place.items()}
    for index, name in enumerate(("test", "val", "train")):
        if name not in split.values():
            split[sorted(place, key=place.__getitem__)[index]] = name
    return [split[key] for key in keys]
