"""A library in an environment of its own: reads lines of JSON, searches as each says, and answers each with a line.

The argument is the library's name. The first line says where vectors and queries lie; each later one names a class of
clients, connections (threads here), seconds and the least number of queries.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

EF_SEARCH, EF_CONSTRUCTION, M = 200, 64, 16
INDEX_FROM = 4_000
_BLOCK = 1_000

Search = Callable[[int, Any], list[int]]
"""The rows that are found for a client and a query, float32[D]."""


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what the libraries print is no answer
    given = json.loads(sys.stdin.readline())
    vectors = np.memmap(given["vectors"], np.float16, "r", shape=tuple(given["shape"]))
    asked = np.load(given["asked"])
    clients = {name: asked[name] for name in asked.files if name.startswith("clients-")}
    with tempfile.TemporaryDirectory(prefix="bench-search-") as folder:
        make = {"faiss": faiss, "milvus-lite": milvus}[sys.argv[1]]
        search = make(vectors, asked["owner"], np.unique(np.concatenate([*clients.values()])), given["limit"], folder)
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            task = json.loads(line)
            queries, owners = asked[f"vectors-{task['size']}"], clients[f"clients-{task['size']}"]
            pairs = list(zip(owners.tolist(), queries, strict=True))
            print(
                json.dumps(turn(search, pairs, task["connections"], task["seconds"], task["least"])),
                file=answers,
                flush=True,
            )


def turn(search: Search, queries: list[Any], threads: int, seconds: float, least: int) -> dict[str, Any]:
    """So many threads take turns at the queries, for that long and at least so many times."""
    milliseconds: list[float] = []
    answers: list[tuple[int, list[int]]] = []
    search(*queries[0])
    began = time.perf_counter()

    def work(first: int) -> None:
        number = first % len(queries)
        while (spent := time.perf_counter() - began) < seconds or (len(milliseconds) < least and spent < 10 * seconds):
            start = time.perf_counter()
            rows = search(*queries[number])
            milliseconds.append((time.perf_counter() - start) * 1000)
            answers.append((number, rows))
            number = (number + threads) % len(queries)

    workers = [threading.Thread(target=work, args=(first,)) for first in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    spent = time.perf_counter() - began
    return {"milliseconds": milliseconds, "seconds": spent, "answers": answers[: 20 * len(queries)]}


def faiss(vectors: Any, owner: Any, clients: Any, limit: int, folder: str) -> Search:
    """An index for each client that will be asked: HNSW for large ones, flat for small ones."""
    import faiss as library

    indexes = {}
    for client in clients.tolist():
        rows = np.flatnonzero(owner == client)
        if len(rows) >= INDEX_FROM:
            index = library.IndexHNSWFlat(vectors.shape[1], M, library.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction, index.hnsw.efSearch = EF_CONSTRUCTION, EF_SEARCH
        else:
            index = library.IndexFlatIP(vectors.shape[1])
        for start in range(0, len(rows), 50 * _BLOCK):
            index.add(unit(vectors[rows[start : start + 50 * _BLOCK]]))
        indexes[client] = rows, index
    library.omp_set_num_threads(1)

    def search(client: int, query: Any) -> list[int]:
        rows, index = indexes[client]
        found = index.search(query[None], limit)[1][0]
        answer: list[int] = rows[found[found >= 0]].tolist()
        return answer

    return search


def milvus(vectors: Any, owner: Any, clients: Any, limit: int, folder: str) -> Search:
    """One collection of all rows, with one HNSW and the client as a filter."""
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(str(Path(folder) / "bench.db"))
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("client", DataType.INT64)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
    index = client.prepare_index_params()
    index.add_index(
        "embedding", index_type="HNSW", metric_type="IP", params={"M": M, "efConstruction": EF_CONSTRUCTION}
    )
    client.create_collection("media", schema=schema, index_params=index)
    for block in _blocks(vectors, owner):
        client.insert("media", block)
    client.flush("media")
    client.load_collection("media")

    def search(one: int, query: Any) -> list[int]:
        found = client.search(
            "media",
            [query.tolist()],
            limit=limit,
            filter=f"client == {one}",
            search_params={"params": {"ef": EF_SEARCH}},
            output_fields=["id"],
        )
        return [hit["id"] for hit in found[0]]

    return search


def _blocks(vectors: Any, owner: Any) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(vectors), _BLOCK):
        block = unit(vectors[start : start + _BLOCK])
        yield [{"id": row, "client": int(owner[row]), "embedding": vector} for row, vector in enumerate(block, start)]


def unit(vectors: Any) -> Any:
    """As float32, every row at length 1."""
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
