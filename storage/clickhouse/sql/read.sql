-- name: series
SELECT CAST(metric AS String) AS metric_name, loc, series_id, arrayStringConcat(kv) AS labels
FROM series
WHERE {{.Where}}
LIMIT 1 BY metric, loc, series_id
LIMIT {{.Limit}}

-- name: series_days
SELECT CAST(metric AS String) AS metric_name, loc, series_id, arrayStringConcat(any(kv)) AS labels, max(day) AS last_day
FROM series
WHERE {{.Where}}
GROUP BY metric, loc, series_id

-- name: samples
SELECT series_id, toUnixTimestamp64Milli(ts) AS t, image, st
FROM samples
WHERE {{.Where}}
ORDER BY {{.Order}}

-- name: histograms
SELECT series_id, toUnixTimestamp64Milli(ts) AS t, st, data
FROM histograms
WHERE {{.Where}}
ORDER BY tenant, metric, loc, series_id, ts

-- name: exemplars
SELECT series_id, toUnixTimestamp64Milli(ts) AS t, image, labels
FROM exemplars
WHERE {{.Where}}
GROUP BY series_id, t, image, labels
ORDER BY series_id, t, min(position), image, labels
LIMIT {{.Limit}}

-- name: series_in
(metric, loc, series_id) IN (SELECT metric, loc, series_id FROM series WHERE {{.Where}})

-- name: estimate
SELECT {{.Count}} AS series
FROM series
WHERE {{.Where}}

-- name: estimate_samples
SELECT count() AS samples, uniqExact(series_id) AS series
FROM samples
WHERE {{.Where}}

-- name: estimate_some
(metric, loc, series_id) IN (SELECT metric, loc, series_id FROM series WHERE {{.Where}} LIMIT {{.Limit}})

-- name: metrics
SELECT DISTINCT metric
FROM series
WHERE {{.Where}}

-- name: label_values_of_metric
SELECT metric AS v
FROM series
WHERE {{.Where}} AND metric != ''
GROUP BY v
ORDER BY v
LIMIT {{.Limit}}

-- name: label_values
SELECT {{.Value}} AS v
FROM series
WHERE {{.Where}} AND v != ''
GROUP BY v
ORDER BY v
LIMIT {{.Limit}}

-- name: label_names
SELECT arrayJoin(names) AS v
FROM series
WHERE {{.Where}}
GROUP BY v
ORDER BY v
LIMIT {{.Limit}}

-- name: cardinality_metrics
SELECT metric AS name, uniqExact(loc, series_id) AS n
FROM series
WHERE {{.Where}}
GROUP BY metric

-- name: cardinality_names
SELECT name, sum(n) AS series, count() AS vals, sum(length(pair)) AS bytes
FROM (
    SELECT name, pair, uniqExact(metric, loc, series_id) AS n
    FROM series ARRAY JOIN names AS name, kv AS pair
    WHERE {{.Where}}
    GROUP BY name, pair
)
GROUP BY name

-- name: cardinality_pairs
SELECT pair, uniqExact(metric, loc, series_id) AS n
FROM series ARRAY JOIN kv AS pair
WHERE {{.Where}}
GROUP BY pair
ORDER BY n DESC, pair
LIMIT {{.Limit}}

-- name: cardinality_values
SELECT {{.Value}} AS v, uniqExact(metric, loc, series_id) AS n
FROM series
WHERE {{.Where}} AND v != ''
GROUP BY v
ORDER BY n DESC, v
LIMIT {{.Limit}}

-- name: cardinality_values_total
SELECT uniqExact({{.Value}} AS v) AS n
FROM series
WHERE {{.Where}} AND v != ''

-- name: metadata
SELECT metric, argMax(type, version), argMax(unit, version), argMax(help, version)
FROM metric_meta
WHERE {{.Where}}
GROUP BY metric
ORDER BY metric
LIMIT {{.Limit}}

-- name: retention
SELECT metric, argMax(days, version) AS d, argMax(removed, version) AS r
FROM retention
WHERE {{.Where}}
GROUP BY metric
HAVING r = 0

-- name: retention_tenants
SELECT DISTINCT tenant
FROM retention

-- name: epochs
SELECT tenant, toUnixTimestamp64Micro(max(version)) AS epoch
FROM deletes
GROUP BY tenant

-- name: delete_status
SELECT id, selector, mint, maxt, argMax(matched, version), min(created) AS c, argMax(erased, version)
FROM deletes
WHERE {{.Where}} AND kind = 'selection'
GROUP BY id, selector, mint, maxt

-- name: deletes_pending
SELECT tenant, id, any(kind), any(selector), any(mint), any(maxt), any(matched), min(created), argMax(erased, version) AS e
FROM deletes
GROUP BY tenant, id
HAVING e = toDateTime64(0, 6, 'UTC')

-- name: tenants
SELECT tenant, uniqExactIf(series_id, day = {{.Today}}) AS active, max(written) AS last
FROM series
GROUP BY tenant
ORDER BY tenant

-- name: tenant_rates
SELECT tenant, count() / {{.Seconds}} AS per_second
FROM samples
WHERE {{.Where}}
GROUP BY tenant

-- name: parts
SELECT max(n)
FROM (
    SELECT count() AS n
    FROM system.parts
    WHERE active AND database = currentDatabase() AND table IN ('samples', 'series')
    GROUP BY table, partition
)

-- name: notes
SELECT process, seq, at, if(process = {{.Own}}, '', body)
FROM notes
WHERE at > {{.Since}} AND at > now64(6) - INTERVAL {{.Life}} SECOND
ORDER BY process, seq

-- name: disk
SELECT sum(bytes_on_disk)
FROM system.parts
WHERE active AND database = currentDatabase()

-- name: disk_free
SELECT min(unreserved_space)
FROM system.disks

-- name: meta
SELECT argMax(value, version)
FROM meta
WHERE {{.Where}}
HAVING count() > 0
