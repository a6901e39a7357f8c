"""psycopg's exceptions translated into those of `server.errors`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from server.errors import (
    BadParameter,
    CatalogueBusy,
    CatalogueConflict,
    CatalogueFailed,
    CatalogueReadOnly,
    CatalogueUnavailable,
    Overloaded,
    SkuTaken,
    SpaceDropped,
    VectorRefused,
)


@contextmanager
def translated() -> Iterator[None]:
    """Translate what psycopg raises in this block. Raises CatalogueUnavailable's kinds and other TwinlensErrors."""
    try:
        yield
    except TooManyRequests as exc:  # more callers wait for a connection than the pool allows
        raise Overloaded from exc
    except (PoolTimeout, PoolClosed) as exc:
        raise CatalogueUnavailable from exc
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as exc:
        raise CatalogueBusy from exc
    except psycopg.errors.ReadOnlySqlTransaction as exc:  # a standby, or one that its operator has made read-only
        raise CatalogueReadOnly from exc
    except psycopg.errors.UndefinedTable as exc:  # only a space's table can be dropped while a server runs
        raise SpaceDropped from exc
    except psycopg.errors.DiskFull as exc:
        raise CatalogueUnavailable("The database's disk is full; nothing was written.") from exc
    except psycopg.errors.UniqueViolation as exc:
        if exc.diag.constraint_name == "products_clientId_sku_key":
            raise SkuTaken from exc
        # PostgreSQL's detail quotes the row in the way: ids of the database, and maybe another client's data.
        raise CatalogueConflict("The catalogue holds this already.") from exc
    except psycopg.errors.ForeignKeyViolation as exc:
        raise CatalogueConflict("What this belongs to was deleted at the same moment.") from exc
    except psycopg.errors.CheckViolation as exc:
        if (exc.diag.constraint_name or "").endswith("_embedding_check"):
            raise VectorRefused from exc
        raise BadParameter(f"A value is out of its bounds ({exc.diag.constraint_name}).") from exc
    except psycopg.errors.StatementTooComplex as exc:  # such as conditions nested deeper than PostgreSQL's stack
        raise BadParameter("The request asks for more conditions at once than the database can look at.") from exc
    except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded, UnicodeEncodeError) as exc:
        raise BadParameter("A text or number is one that the database cannot hold.") from exc
    except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
        raise CatalogueUnavailable from exc
    except psycopg.Error as exc:
        raise CatalogueFailed from exc
