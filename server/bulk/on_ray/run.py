"""The run in the process of the command: it answers the workers that ask for rows, and counts what they tell.

Ray Data moves the records from stage to stage, holds back a stage that is ahead of the next one, makes pools of workers
larger and smaller, and has a batch done again whose worker or machine was lost. Nothing relies on an order.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import warnings
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.exceptions import SystemException
from ray.exceptions import RayError, RayTaskError
from ray.util.annotations import RayDeprecationWarning
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from server import __version__
from server.bulk.bringing import Bring, BringRows, Run
from server.bulk.on_ray.cluster import Cluster
from server.bulk.on_ray.records import Batch, Told, batch_of, numbered
from server.bulk.on_ray.stages import Decode, Encode, Orders, Stage, Write
from server.bulk.on_ray.supply import Handing, Supply
from server.errors import IngestRefused
from server.ingest.pipeline import Counts, Failed
from server.ingest.spool import Placed

_SMALLEST_BATCH, _LARGEST_BATCH = 16, 256
_BATCHES_FOR_EACH_CPU = 16
_MOST_WRITERS = 8
_MOST_ASKING = 10_000

# A picture that ends whichever worker decodes it must end the run at last.
_TRIES_OF_A_BATCH = 3

_NUMBERS_AT_ONCE = 1_000

_CLOSING_SECONDS = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shares:
    """How the cluster is divided among the stages."""

    encoders: int
    threads: int
    """Of each encoder, on the CPU."""
    gpu: bool
    decoders: int
    """At most; Ray Data begins with one."""
    writers: int

    @classmethod
    def of(cls, cluster: Cluster, threads: int | None, *, gpu: bool) -> Shares:
        """`threads`: of each encoder, where they are said; else half of the smallest machine, as beside servers."""
        if gpu:
            encoders, wide, taken = cluster.gpus, 1, 0
        else:
            cores = [one.cpus for one in cluster.nodes if one.cpus]
            # One that decodes must find a place, too.
            widest = max(cores) if len(cores) > 1 else max(1, cores[0] - 1)
            wide = min(threads or max(1, min(cores) // 2), widest)
            encoders = max(1, sum(one // wide for one in cores) // 2)
            taken = encoders * wide
        return cls(encoders, wide, gpu, max(1, cluster.cpus - taken), min(_MOST_WRITERS, 2 * encoders))


def on_cluster(cluster: Cluster) -> Bring:
    """Brings rows in on this cluster."""

    # It warns of what is meant, such as that it shows no progress.
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    @asynccontextmanager
    async def bring(run: Run) -> AsyncIterator[BringRows]:
        gpu = bool(cluster.gpus) and run.job.settings.device != "cpu"
        # All encoders on the same kind of device, so that a vector does not depend on whose turn it was.
        job = replace(run.job, settings=replace(run.job.settings, device="cuda" if gpu else "cpu"))
        shares = Shares.of(cluster, job.settings.threads, gpu=gpu)
        orders = Orders(
            job=job,
            url=run.url,
            serving_url=run.serving_url,
            version=__version__,
            nonce=secrets.token_bytes(32),
            threads=shares.threads,
            gives_way=cluster.local,
        )
        _log.info(
            "On Ray: %d CPUs and %d GPUs; %d encoders, at most %d decoders, %d writers.",
            *(cluster.cpus, cluster.gpus, shares.encoders, shares.decoders, shares.writers),
        )

        async def bring_rows(rows: Iterator[Placed], count: int) -> Counts:
            if not count:
                return Counts()
            size = count // (_BATCHES_FOR_EACH_CPU * max(1, cluster.cpus))
            size = max(_SMALLEST_BATCH, min(_LARGEST_BATCH, size))
            return await _Driving(run, orders, shares, Handing(rows, size, run.stop)).bring(-(-count // size))

        yield bring_rows

    return bring


class RayDesk:
    """How a worker reaches the supply: through Ray."""

    def __init__(self, supply: Any) -> None:
        self._supply = supply

    async def ask(self, number: int) -> bytes:
        rows: bytes = await self._supply.ask.remote(number)
        return rows

    def begin(self, stage: str, number: int) -> None:
        self._supply.begin.remote(stage, number)


class Numbers(Datasource):  # type: ignore[misc]  # Ray has no types for us
    """The numbers of the batches, which are read where they are needed: nothing of the feed is in them."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def estimate_inmemory_data_size(self) -> int:
        return 8 * self._count

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        count = self._count

        def read() -> Iterator[pa.Table]:
            for start in range(0, count, _NUMBERS_AT_ONCE):
                yield numbered(range(start, min(start + _NUMBERS_AT_ONCE, count)))

        return [ReadTask(read, BlockMetadata(num_rows=count, size_bytes=8 * count, exec_stats=None, input_files=None))]


def stages_of(batches: int, orders: Orders, shares: Shares, desk: RayDesk) -> Dataset:
    """What becomes of so many batches. Nothing is begun until its records are asked for."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Each record is a block by itself, and so what is handed on, and what is done again, is one batch.
    context.target_max_block_size = 1
    dataset = ray.data.read_datasource(Numbers(batches), num_cpus=0, override_num_blocks=1)

    def then(dataset: Dataset, stage: type[Stage], pool: ActorPoolStrategy, **resources: float) -> Dataset:
        return dataset.map_batches(
            stage,
            fn_constructor_args=(orders, desk),
            batch_size=1,
            batch_format="pyarrow",
            compute=pool,
            max_restarts=-1,
            max_task_retries=_TRIES_OF_A_BATCH,
            **resources,
        )

    on_what = {"num_gpus": 1, "num_cpus": 0} if shares.gpu else {"num_cpus": shares.threads}
    with warnings.catch_warnings():
        # Of tries and restarts: Ray wants them otherwise from 2.64 on, and 2.60 has no other way.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        dataset = then(dataset, Decode, ActorPoolStrategy(min_size=1, max_size=shares.decoders), num_cpus=1)
        dataset = then(dataset, Encode, ActorPoolStrategy(size=shares.encoders), **on_what)
        return then(dataset, Write, ActorPoolStrategy(size=shares.writers), num_cpus=0)


class _Driving:
    """Answers, and counts."""

    def __init__(self, run: Run, orders: Orders, shares: Shares, handing: Handing) -> None:
        self._run = run
        self._orders = orders
        self._shares = shares
        self._handing = handing
        self._counts = Counts()

    async def bring(self, batches: int) -> Counts:
        """Raises what is no row's fault, as `Pipeline.run`; IngestRefused where the cluster fails."""
        try:
            supply = self._supply()
            desk = RayDesk(supply)
            answering = asyncio.create_task(self._answer(supply))
            counting = asyncio.create_task(
                self._count_all(stages_of(batches, self._orders, self._shares, desk), supply)
            )
            try:
                await asyncio.wait((answering, counting), return_when=asyncio.FIRST_COMPLETED)
                if counting.done():
                    await counting
                if answering.done():
                    await answering
                if not self._handing.done.is_set():
                    raise IngestRefused("Ray ended the run before all rows were done; the same command goes on.")
                await self._say_what_was_repeated(supply)
            finally:
                # In this order: whoever waits for a record gets one as long as numbers are answered.
                for task in (counting, answering):
                    task.cancel()
                    await asyncio.wait([task])
        except (RayError, SystemException) as exc:
            if isinstance(exc, RayTaskError):
                raise
            raise IngestRefused(
                f"The Ray cluster failed: {_first_line(exc)} What is written is kept, and the same command goes on "
                "from there."
            ) from exc
        return self._counts

    def _supply(self) -> Any:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return (
            ray.remote(Supply)
            .options(
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
                max_concurrency=_MOST_ASKING,
                scheduling_strategy=here,
            )
            .remote()
        )

    async def _answer(self, supply: Any) -> None:
        while True:
            for number in await supply.wanted.remote():
                supply.give.remote(number, await self._handing.give(number))

    async def _count_all(self, dataset: Dataset, supply: Any) -> None:
        """Until all is done. Numbers that are left over give records as well, so that this is noticed soon."""
        loop = asyncio.get_running_loop()
        # One thread, which waits for Ray Data, and ends it.
        thread = ThreadPoolExecutor(1, "ray-data")
        tables = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        try:
            while not self._handing.done.is_set():
                if (table := await loop.run_in_executor(thread, next, tables, None)) is None:
                    return
                for at in range(table.num_rows):
                    batch = batch_of(table.slice(at, 1))
                    self._count(batch)
                    if not self._handing.is_out(batch.number):
                        supply.forget.remote(batch.number)
        finally:
            # Ray must not be left while the thread is in it: that would end this process at once.
            closing = loop.run_in_executor(thread, tables.close)
            await asyncio.wait([closing], timeout=_CLOSING_SECONDS)
            thread.shutdown(wait=False)

    def _count(self, batch: Batch) -> None:
        if batch.trouble is not None:
            raise batch.trouble.error()
        if self._handing.is_out(batch.number):
            self._counts.products_made += batch.products_made
        for told in batch.told:
            if (row := self._handing.settle(batch.number, told.at)) is not None:
                self._count_row(told, row)

    def _count_row(self, told: Told, row: Placed) -> None:
        counts = self._counts
        counts.rows += 1
        counts.unchanged += told.what == "unchanged"
        counts.embedded += told.embedded
        counts.added += told.added
        counts.replaced += told.replaced
        if told.trouble is not None:
            counts.failed += 1
            self._run.on_failed(Failed(row, told.trouble.error()))
        self._run.on_done(1)

    async def _say_what_was_repeated(self, supply: Any) -> None:
        if again := await supply.begun_again.remote():
            what = ", ".join(f"{stage} {times}" for stage, times in sorted(again.items()))
            _log.info("Workers were lost, and batches were done again: %s.", what)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".") + "."
