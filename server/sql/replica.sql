-- Every statement of replica.py: a name, a sentence, named parameters.

-- position --
-- On the primary: its database system, its timeline, and the position in its log up to which commits are acknowledged.
-- A commit is acknowledged once it is on the primary's disk; where synchronous_commit is off, already before that.
SELECT system_identifier AS system, ('x' || left(pg_walfile_name(flushed), 8))::bit(32)::integer AS timeline,
    (CASE WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn() ELSE flushed END)::text
        AS lsn
FROM pg_control_system(), pg_current_wal_flush_lsn() AS flushed

-- identity --
-- On a standby: its database system, and the newest timeline that it is known to have replayed or to receive. The
-- control file learns of a timeline minutes late; who receives it is shown to roles with pg_read_all_stats only.
SELECT s.system_identifier AS system, greatest(c.timeline_id, r.min_recovery_end_timeline, w.received_tli) AS timeline
FROM pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() r
LEFT JOIN pg_stat_wal_receiver w ON true

-- replayed --
-- On a standby: whether it is one still, and whether it shows all that the primary had written up to this position.
SELECT pg_is_in_recovery() AS standby, coalesce(pg_last_wal_replay_lsn() >= %(lsn)s::pg_lsn, false) AS there
