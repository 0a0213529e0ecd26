-- name: stage
ALTER TABLE {{.Stage}} ATTACH PARTITION ALL FROM {{.Table}}

-- name: stale_stages
SELECT name
FROM system.tables
WHERE database = currentDatabase() AND startsWith(name, {{.Prefix}}) AND metadata_modification_time < now() - INTERVAL 2 DAY

-- name: drop
DROP TABLE IF EXISTS {{.Table}}

-- name: create_manifest
CREATE TABLE {{.Table}} (body String) ENGINE = MergeTree ORDER BY tuple()

-- name: insert_manifest
INSERT INTO {{.Table}} (body)

-- name: manifest
SELECT body
FROM {{.Table}}

-- name: backup
BACKUP {{.Tables}} TO {{.Destination}} SETTINGS id = '{{.ID}}' ASYNC

-- name: restore
RESTORE {{.Tables}} FROM {{.Destination}} SETTINGS id = '{{.ID}}', allow_different_table_def = 1 ASYNC

-- name: state
SELECT toString(status), error, total_size, query_id
FROM system.backups
WHERE id = {{.ID}}

-- name: kill
KILL QUERY WHERE query_id = {{.Query}} SYNC

-- name: filled
SELECT table, sum(rows)
FROM system.parts
WHERE active AND database = currentDatabase()
GROUP BY table
HAVING sum(rows) > 0

-- name: truncate
TRUNCATE TABLE IF EXISTS {{.Table}}{{.OnCluster}}

-- name: merges
SYSTEM {{.Verb}} MERGES {{.Table}}

-- name: check
CHECK TABLE {{.Table}} SETTINGS check_query_single_value_result = 1

-- name: rename
RENAME TABLE {{.Table}} TO {{.To}}{{.OnCluster}}

-- name: prints_of_samples
SELECT tenant, toInt64(toInt32(toDate32(ts))) AS d, retention_days, count(), sum(cityHash64(metric, loc, series_id, ts, image)), sum(cityHash64(st))
FROM {{.Table}} FINAL
GROUP BY tenant, d, retention_days

-- name: prints_of_histograms
SELECT tenant, toInt64(toInt32(toDate32(ts))) AS d, retention_days, count(), sum(cityHash64(metric, loc, series_id, ts, digest, data)), sum(cityHash64(st))
FROM {{.Table}} FINAL
GROUP BY tenant, d, retention_days

-- name: prints_of_exemplars
SELECT tenant, toInt64(toInt32(toDate32(ts))) AS d, retention_days, count(), sum(cityHash64(metric, loc, series_id, ts, image, labels)), sum(cityHash64(position))
FROM {{.Table}} FINAL
GROUP BY tenant, d, retention_days

-- name: prints_of_series
SELECT tenant, toInt64(day) AS d, retention_days, count(), sum(cityHash64(metric, loc, series_id, names, kv)), sum(cityHash64(written))
FROM {{.Table}} FINAL
GROUP BY tenant, d, retention_days

-- name: prints_of_metric_meta
SELECT tenant, toInt64(0) AS d, toUInt16(0) AS class, count(), sum(cityHash64(metric, type, unit, help)), sum(cityHash64(version))
FROM {{.Table}} FINAL
GROUP BY tenant

-- name: prints_of_retention
SELECT tenant, toInt64(0) AS d, toUInt16(0) AS class, count(), sum(cityHash64(metric, days, removed)), sum(cityHash64(version))
FROM {{.Table}} FINAL
GROUP BY tenant

-- name: prints_of_deletes
SELECT tenant, toInt64(0) AS d, toUInt16(0) AS class, count(), sum(cityHash64(id, kind, selector, mint, maxt, matched, created, erased)), sum(cityHash64(version))
FROM {{.Table}} FINAL
GROUP BY tenant
