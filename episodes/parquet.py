"""One episode as one Parquet table: a row a time stamp, columns that pandas reads, metadata in the schema.

Columns (float64): `time` [s], `x.<name>`, `commanded.<name>`, `applied.<name>`, `cost`, `cost.<term>`, `plan_seconds` [s].
The last row holds the last state; its command and cost columns are null. Pages carry checksums.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from episodes.episode import Episode, FrameTimes
from episodes.metadata import EpisodeMetadata
from robots.errors import StoreError, UserError, VersionError

FORMAT_VERSION = 1
"""Counts up when a file of the old layout could no longer be read as the new one."""
METADATA_KEY = b"reflexarc.episode"
"""Key of the JSON in the Parquet schema metadata."""


def encode_episode(episode: Episode) -> bytes:
    """Return the bytes of the Parquet file that holds `episode`; every float64 is kept bit for bit."""
    columns = {"time": episode.time}
    columns |= {f"x.{name}": episode.x[:, i] for i, name in enumerate(episode.state_names)}
    columns |= {f"commanded.{name}": episode.commanded[:, i] for i, name in enumerate(episode.command_names)}
    columns |= {f"applied.{name}": episode.applied[:, i] for i, name in enumerate(episode.command_names)}
    columns["cost"] = episode.cost
    columns |= {f"cost.{name}": values for name, values in episode.cost_terms.items()}
    if episode.plan_seconds is not None:
        columns["plan_seconds"] = episode.plan_seconds
    header = {
        "format": FORMAT_VERSION, "steps": episode.steps, "terminated": episode.terminated, "truncated": episode.truncated,
        "state_names": episode.state_names, "command_names": episode.command_names, "cost_terms": list(episode.cost_terms),
        "plan_seconds": episode.plan_seconds is not None, "metadata": episode.metadata.to_json(),
        "frames": {name: {"sequence": f.sequence.tolist(), "captured_ns": f.captured_ns.tolist()} for name, f in episode.frames.items()},
    }
    arrays = [_padded(values, episode.steps + 1) for values in columns.values()]
    table = pa.table(dict(zip(columns, arrays, strict=True))).replace_schema_metadata({METADATA_KEY: json.dumps(header).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=False, write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def decode_episode(data: bytes, source: str) -> Episode:
    """Return the episode that `encode_episode` wrote into `data`.

    Raises StoreError (empty, truncated, damaged or foreign) or VersionError, both naming `source` and what to do.
    """
    if not data:
        raise StoreError(f"{source}: the file is empty, expected an episode. {_ADVICE}")
    try:
        # Without threads of its own: one that still starts while the process ends takes it down (seen once in a test run).
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True, pre_buffer=False)
        table = file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{source}: truncated, damaged or not a Parquet file ({str(error).splitlines()[0]}). {_ADVICE}") from error
    header = _header(table, source)
    try:
        return _episode(table, header)
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        raise StoreError(f"{source}: its columns do not make an episode ({type(error).__name__}: {error}). {_ADVICE}") from error


_ADVICE = ("Nothing was changed on disk: put the file back from a copy, or keep only the episodes before it with "
           "EpisodeStore(...).truncate_to(<its number>), which moves the rest into superseded/")


def _padded(values: np.ndarray, rows: int) -> pa.Array:
    padding = [None] * (rows - len(values))
    # from_pandas=False: a NaN in plan_seconds is a NaN, not a null
    values = pa.array(np.ascontiguousarray(values), type=pa.float64(), from_pandas=False)
    return pa.concat_arrays([values, pa.array(padding, type=pa.float64())])


def _header(table: pa.Table, source: str) -> dict:
    raw = (table.schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise StoreError(f"{source}: a Parquet file that Reflexarc did not write (schema metadata lacks {METADATA_KEY.decode()!r}). "
                         "Move it out of the folder of episodes")
    try:
        header = json.loads(raw)
        version = header["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{source}: its metadata {METADATA_KEY.decode()!r} is damaged ({error}). {_ADVICE}") from error
    if version != FORMAT_VERSION:
        metadata = header.get("metadata")
        writer = metadata.get("software_version", "unknown") if isinstance(metadata, dict) else "unknown"
        raise VersionError(f"{source}: written in episode format {version} by reflexarc {writer}; this version reads format "
                           f"{FORMAT_VERSION}. Read it with the version that wrote it; the file was left as it is")
    return header


def _episode(table: pa.Table, header: dict) -> Episode:
    steps = header["steps"]
    if table.num_rows != steps + 1:
        raise ValueError(f"expected {steps + 1} rows, got {table.num_rows}")

    def column(name: str, rows: int) -> np.ndarray:
        values = table.column(name)
        if values.type != pa.float64():
            raise ValueError(f"expected column {name!r} to hold float64, got {values.type}")
        if values.null_count != table.num_rows - rows or values[:rows].null_count:
            raise ValueError(f"expected nulls in column {name!r} only in the last {table.num_rows - rows} rows, got {values.null_count}")
        return values[:rows].to_numpy()

    def columns(prefix: str, names: Sequence[str], rows: int) -> np.ndarray:
        return np.stack([column(f"{prefix}.{name}", rows) for name in names], axis=-1)

    return Episode(
        time=column("time", steps + 1), x=columns("x", header["state_names"], steps + 1),
        commanded=columns("commanded", header["command_names"], steps), applied=columns("applied", header["command_names"], steps),
        cost=column("cost", steps), terminated=header["terminated"], truncated=header["truncated"],
        state_names=header["state_names"], command_names=header["command_names"],
        metadata=EpisodeMetadata.from_json(header["metadata"]),
        cost_terms={name: column(f"cost.{name}", steps) for name in header["cost_terms"]},
        plan_seconds=column("plan_seconds", steps) if header["plan_seconds"] else None,
        frames={name: FrameTimes(**times) for name, times in header["frames"].items()},
    )
