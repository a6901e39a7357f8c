"""A database in which every default that matters is another one than PostgreSQL's."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg import sql

from tests.support.databases import database_of

ODD: Mapping[str, str] = {
    "client_encoding": "LATIN1",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "-10",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "exit_on_error": "on",
    "session_replication_role": "replica",
    "row_security": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "on",
    "jit_above_cost": "0",
    "enable_seqscan": "off",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "enable_nestloop": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_hashagg": "off",
    "enable_material": "off",
    "gin_fuzzy_search_limit": "1",
    "hnsw.max_scan_tuples": "1",
    "hnsw.ef_search": "1",
    "hnsw.iterative_scan": "strict_order",
    "idle_session_timeout": "1s",
    "idle_in_transaction_session_timeout": "1s",
    "transaction_timeout": "1s",
    "statement_timeout": "1s",
    "lock_timeout": "1s",
    "quote_all_identifiers": "on",
    "client_min_messages": "debug1",
    "check_function_bodies": "off",
}


def make_odd(url: str, **more: str) -> None:
    """Give new connections to this database, from now on, these defaults and `more`."""
    with psycopg.connect(url, autocommit=True) as connection:
        for name, value in {**ODD, **more}.items():
            known = connection.execute("SELECT current_setting(%s, true)", (name,)).fetchone() != (None,)
            if known or "." in name:  # an extension's become known with its first function
                database, setting, text = sql.Identifier(database_of(url)), sql.SQL(name), sql.Literal(value)
                connection.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(database, setting, text))
